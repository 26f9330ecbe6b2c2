//! The time of day, which a test can set.

/// Where the time of day comes from.
pub trait Clock: Send + Sync {
    /// Milliseconds since the Unix epoch, as Kafka timestamps count them.
    fn now_ms(&self) -> i64;
}

/// A function that tells the time.
impl<F: Fn() -> i64 + Send + Sync> Clock for F {
    fn now_ms(&self) -> i64 {
        self()
    }
}
