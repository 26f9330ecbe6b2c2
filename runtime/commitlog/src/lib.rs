//! A log directory: partitions in Kafka's file format, one journal, one sync group.

#![expect(missing_docs, reason = "the crate is being laid out")]

pub mod storage;
