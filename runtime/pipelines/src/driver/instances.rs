//! The instances of a driver's plugins.

use std::sync::Arc;

use pelton_streams::{Digest, InstanceSpec, PluginLimits};

use super::{Driver, DriverError};
use crate::status::InstanceLog;

impl Driver<'_> {
    /// Gives the nodes of a source their plugins.
    pub(super) fn start_plugins(&mut self, source: usize) -> Result<(), DriverError> {
        if let Some(node) = self.spec.topology.consumer_of(source) {
            return self.start_workers(node);
        }
        for index in self.spec.topology.nodes_of(source) {
            if self.plugins.has(index) {
                continue;
            }
            let node = &self.spec.topology.nodes[index];
            let spec = self.instance_spec((&node.id, &node.plugin.digest), &node.config, node.limits);
            let plugin = self.spec.factory.instantiate(&node.plugin.digest, &spec);
            let plugin = plugin.map_err(|error| DriverError::Start { node: node.id.clone(), error })?;
            self.plugins.set(index, plugin);
        }
        for index in self.spec.topology.aggregators_of(source) {
            let node = &self.spec.topology.operators[index];
            let Some(plugin) = node.plugin.as_ref().filter(|_| !self.plugins.has_aggregator(index)) else {
                continue;
            };
            let spec = self.instance_spec((&node.id, &plugin.info.digest), &plugin.config, plugin.limits);
            let started = self.spec.factory.instantiate_aggregator(&plugin.info.digest, &spec);
            let started = started.map_err(|error| DriverError::Start { node: node.id.clone(), error })?;
            self.plugins.set_aggregator(index, started);
        }
        let topology = Arc::clone(&self.spec.topology);
        for (output, id, plugin) in topology.partitioners() {
            if self.plugins.has_partitioner(output) {
                continue;
            }
            let spec = self.instance_spec((&id, &plugin.info.digest), &plugin.config, plugin.limits);
            let started = self.spec.factory.instantiate_partitioner(&plugin.info.digest, &spec);
            let started = started.map_err(|error| DriverError::Start { node: id, error })?;
            self.plugins.set_partitioner(output, started);
        }
        Ok(())
    }

    /// How an instance of a node's plugin is made.
    fn instance_spec(
        &self,
        (node, plugin): (&str, &Digest),
        config: &[(String, String)],
        limits: PluginLimits,
    ) -> InstanceSpec {
        let log = InstanceLog::new(&self.spec.board, node, plugin, &self.calling);
        InstanceSpec { config: config.to_vec(), limits, log: Arc::new(log) }
    }
}
