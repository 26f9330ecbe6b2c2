//! Reading the marker that ends a transaction.

use pelton_wire::record::{BatchView, ControlError, DecompressLimit, EndTransactionMarker};

/// The end-of-transaction marker in a control batch, `None` if it holds another control record.
pub(crate) fn parse_marker(view: &BatchView<'_>) -> Result<Option<EndTransactionMarker>, String> {
    let mut scratch = Vec::new();
    let mut records = view.records(&mut scratch, DecompressLimit::default()).map_err(|e| e.to_string())?;
    let Some(record) = records.next() else { return Ok(None) };
    match EndTransactionMarker::parse(&record.map_err(|e| e.to_string())?) {
        Ok(marker) => Ok(Some(marker)),
        Err(ControlError::NotMarker(_)) => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}
