//! Every plugin of a deployment is started once before anything changes.

use std::sync::Arc;

use pelton_streams::http::HttpSpec;
use pelton_streams::log::NoLog;
use pelton_streams::topology::Node;
use pelton_streams::world::Place;
use pelton_streams::{Digest, InstanceSpec, PluginLimits, Topology};

use super::{Checked, Supervisor};
use crate::refusal::DeployError;

/// A plugin in its place.
struct Starting {
    /// What errors call it.
    node: String,
    digest: Digest,
    spec: InstanceSpec,
    place: Place,
    /// What it may send, if it may send something.
    http: Option<HttpSpec>,
}

fn starting(topology: &Topology) -> Vec<Starting> {
    let one = |node: &str, digest: Digest, config: &[(String, String)], limits: PluginLimits, place| {
        let spec = InstanceSpec { config: config.to_vec(), limits, log: Arc::new(NoLog) };
        Starting { node: node.to_owned(), digest, spec, place, http: None }
    };
    let node = |n: &Node| {
        let http = n.consumer.as_ref().filter(|_| n.plugin.world.has_http());
        let http = http.map(|consumer| consumer.http.clone());
        let place = n.plugin.world.spec().place;
        Starting { http, ..one(&n.id, n.plugin.digest, &n.config, n.limits, place) }
    };
    let mut all: Vec<Starting> = topology.nodes.iter().map(node).collect();
    for node in &topology.operators {
        let plugin = node.plugin.iter();
        all.extend(plugin.map(|p| one(&node.id, p.info.digest, &p.config, p.limits, Place::Aggregate)));
    }
    let partitioners = topology.partitioners();
    all.extend(partitioners.map(|(_, id, p)| one(&id, p.info.digest, &p.config, p.limits, Place::Topic)));
    all
}

impl Supervisor {
    /// Starts every plugin once with its settings: one that refuses them refuses the deployment.
    pub(super) async fn try_start(&self, checked: &Checked) -> Result<(), DeployError> {
        for Starting { node, digest, spec, place, http } in starting(&checked.topology) {
            let factory = Arc::clone(&self.spec.factory);
            let start = move || match place {
                Place::Aggregate => factory.instantiate_aggregator(&digest, &spec).map(drop),
                Place::Topic => factory.instantiate_partitioner(&digest, &spec).map(drop),
                Place::End => {
                    let client = http.map(|http| factory.network()?.client(&http)).transpose()?;
                    factory.instantiate_consumer(&digest, &spec, client.as_ref()).map(drop)
                }
                Place::Node | Place::Upgrade => factory.instantiate(&digest, &spec).map(drop),
            };
            let started = tokio::task::spawn_blocking(start).await.map_err(|_| DeployError::Stopping)?;
            started.map_err(|error| DeployError::Start { node, error })?;
        }
        Ok(())
    }
}
