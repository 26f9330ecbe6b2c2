//! The parts of the broker that handlers get. The wiring makes them once; the table of APIs names those of each
//! handler.

use std::sync::Arc;

use pelton_commitlog::LogDir;

use super::fetch::Fetching;
use super::produce::Producing;
use crate::admin::Admin;
use crate::admin::pipelines::PipelinesSlot;
use crate::clock::Clock;
use crate::config::{Config, HostPort};
use crate::group::service::Groups;
use crate::metrics::Metrics;
use crate::topics::Topics;
use crate::topics::producer_ids::ProducerIds;
use crate::txn::Transactions;

/// All parts, under the names that the table of APIs uses.
pub(crate) struct Parts {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) topics: Arc<Topics>,
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) admin: Arc<Admin>,
    pub(crate) produce: Arc<Producing>,
    pub(crate) fetch: Arc<Fetching>,
    pub(crate) groups: Arc<GroupParts>,
    pub(crate) transactions: Arc<TransactionParts>,
    pub(crate) coordinators: Arc<CoordinatorParts>,
}

/// The node as clients see it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) id: i32,
    pub(crate) cluster_id: String,
    /// The advertised address.
    pub(crate) advertised: HostPort,
}

/// For requests about the cluster and its configuration.
pub(crate) struct Cluster {
    pub(crate) node: Node,
    pub(crate) config: Arc<Config>,
    pub(crate) log_dir: Arc<LogDir>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// For requests to the group coordinator.
pub(crate) struct GroupParts {
    pub(crate) groups: Groups,
    pub(crate) topics: Arc<Topics>,
    pub(crate) pipelines: PipelinesSlot,
}

/// For requests to the transaction coordinator.
pub(crate) struct TransactionParts {
    pub(crate) transactions: Transactions,
    pub(crate) groups: Groups,
    pub(crate) topics: Arc<Topics>,
    pub(crate) pipelines: PipelinesSlot,
    pub(crate) producer_ids: Arc<ProducerIds>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// For FindCoordinator.
pub(crate) struct CoordinatorParts {
    pub(crate) node: Node,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
}
