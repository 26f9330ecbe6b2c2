//! What pipelines need of this broker: its partitions, its coordinators, and a topic for what is deployed.

mod broker_io;
mod deployment_log;
mod globals;
pub(crate) mod kept_logs;
mod places;
pub(crate) mod redrive;
#[cfg(test)]
mod tests;

pub(crate) use self::broker_io::{BrokerIoFactory, ReadFault, read_committed};
pub(crate) use self::deployment_log::BrokerDeploymentLog;
pub(crate) use self::globals::BrokerGlobals;
pub(crate) use self::places::{Whereabouts, find as find_place};
