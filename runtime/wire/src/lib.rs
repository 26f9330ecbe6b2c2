//! The bytes that Kafka defines: requests and responses, record batches, compression.

pub mod record;
