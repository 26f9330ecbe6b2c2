//! Who a producer is.

/// A producer as it names itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProducerIdentity {
    pub id: i64,
    /// Its epoch: a producer with an older one is fenced.
    pub epoch: i16,
}
