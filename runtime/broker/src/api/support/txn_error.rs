//! Errors of the transaction coordinator that have no number.

use crate::api::reply::Close;
use crate::txn::error::TxnError;

/// The error, unless the connection is closed instead of an answer: nobody waits for one there, or somebody does whom this broker
/// takes for gone, who then connects anew and is heard.
pub(in crate::api) fn or_close(error: TxnError) -> Result<TxnError, Close> {
    match error {
        TxnError::Passed => {
            Err(Close("a copy of a request that its producer has gone on from", error.code()))
        }
        other => Ok(other),
    }
}
