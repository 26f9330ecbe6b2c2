//! Errors of the transaction coordinator that have no error code.

use crate::api::reply::Close;
use crate::txn::error::TxnError;

/// The error, or the closing of the connection for a stale request, whose answer no client waits for.
pub(in crate::api) fn or_close(error: TxnError) -> Result<TxnError, Close> {
    match error {
        TxnError::Repeated => {
            Err(Close("stale copy of a request: its producer has sent later ones", error.code()))
        }
        other => Ok(other),
    }
}
