//! Errors of the transaction coordinator that have no number.

use crate::api::reply::Close;
use crate::txn::error::TxnError;

/// The error, unless the connection is closed instead of an answer, for which nobody waits there.
pub(in crate::api) fn or_close(error: TxnError) -> Result<TxnError, Close> {
    match error {
        TxnError::Repeated => {
            Err(Close("a copy of a request that its producer has gone on from", error.code()))
        }
        other => Ok(other),
    }
}
