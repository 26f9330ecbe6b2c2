//! Why the transaction coordinator refuses, and Kafka's numbers for it.

use pelton_wire::ErrorCode;

use super::origin::StaleRequest;

/// A refusal of the transaction coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TxnError {
    /// Empty where a name is needed, or longer than a record can hold.
    #[error("the transactional id is empty or too long")]
    InvalidId,
    #[error("transactional ids that begin with `pelton.` are those of pipelines; choose another one")]
    Reserved,
    #[error("the transaction time-out is not above 0 and at most `transaction.max.timeout.ms`")]
    InvalidTimeout,
    #[error("the producer id does not belong to this transactional id")]
    UnknownProducer,
    #[error("a newer producer of this transactional id has fenced this one")]
    Fenced,
    #[error("the previous transaction is still ending")]
    Concurrent,
    #[error("the state of the transaction does not allow this")]
    InvalidState,
    #[error("the partition is not part of the transaction")]
    NotAdded,
    #[error("the broker has `pelton.max.transactional.ids` transactional ids")]
    TooMany,
    /// The network's copy of a request that its client has sent again and gone on from.
    #[error("a later request of this producer has overtaken this one")]
    Repeated,
    /// Such a copy, or a request of a client that uses several connections at a time, which sends it again.
    #[error(
        "the producer's last request came over another connection; this one is served when it is sent again"
    )]
    Elsewhere,
    /// Definite: nothing was done. The client tries again.
    #[error("the coordinator cannot serve this transactional id at the moment")]
    NotAvailable,
}

impl TxnError {
    /// Kafka's number for it, for clients that know `PRODUCER_FENCED`; see [`TxnError::code_before_fenced`].
    pub fn code(self) -> ErrorCode {
        match self {
            TxnError::InvalidId => ErrorCode::INVALID_REQUEST,
            TxnError::Reserved => ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
            TxnError::InvalidTimeout => ErrorCode::INVALID_TRANSACTION_TIMEOUT,
            TxnError::UnknownProducer => ErrorCode::INVALID_PRODUCER_ID_MAPPING,
            TxnError::Fenced => ErrorCode::PRODUCER_FENCED,
            TxnError::Concurrent | TxnError::Elsewhere => ErrorCode::CONCURRENT_TRANSACTIONS,
            TxnError::InvalidState | TxnError::NotAdded => ErrorCode::INVALID_TXN_STATE,
            TxnError::TooMany => ErrorCode::POLICY_VIOLATION,
            TxnError::Repeated => ErrorCode::NETWORK_EXCEPTION,
            TxnError::NotAvailable => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        }
    }

    /// The number for clients from before `PRODUCER_FENCED` (KIP-588).
    pub fn code_before_fenced(self) -> ErrorCode {
        match self {
            TxnError::Fenced => ErrorCode::INVALID_PRODUCER_EPOCH,
            other => other.code(),
        }
    }
}

impl From<StaleRequest> for TxnError {
    fn from(stale: StaleRequest) -> TxnError {
        match stale {
            StaleRequest::Repeated => TxnError::Repeated,
            StaleRequest::Elsewhere => TxnError::Elsewhere,
        }
    }
}
