//! Helpers of several handlers.

pub(super) mod broker_settings;
pub(super) mod configs;
pub(crate) mod error_map;
pub(super) mod once;
pub(super) mod pipeline_group;
pub(super) mod txn_error;
