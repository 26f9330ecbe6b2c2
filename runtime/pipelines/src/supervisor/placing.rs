//! Plugins that place records for who is no pipeline: records that come over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::log::NoLog;
use pelton_streams::plugin::{PartitionerPlugin, checked_partitions};
use pelton_streams::{BatchIn, InstanceSpec, Manifest, PluginError};

use super::{Checked, Supervisor};
use crate::compiler::Patience;
use crate::refusal::DeployError;

/// A partitioner with its configuration. It stays loaded as long as this exists.
pub struct Placer {
    plugin: Box<dyn PartitionerPlugin>,
    _loaded: Checked,
}

impl Placer {
    /// A partition for each record.
    ///
    /// # Errors
    /// The call failed, or names a partition that is not there.
    pub fn place(&mut self, batch: &BatchIn<'_>, partitions: u32) -> Result<Vec<i32>, PluginError> {
        let placed = self.plugin.partition(batch, partitions)?;
        checked_partitions(&placed, batch.len(), partitions)
    }
}

impl Supervisor {
    /// A partitioner that was pushed, by its name or `NAME@sha256:...`, with its configuration as a table of TOML, or nothing. A
    /// sink of a pipeline and a topic have the same one. Blocks while it starts.
    ///
    /// # Errors
    /// It was never pushed, may not run here, is no partitioner, does not take the configuration, or does not start.
    pub async fn placer(&self, plugin: &str, config: &str) -> Result<Placer, DeployError> {
        let manifest = Manifest::placing(plugin, config)?;
        let checked = self.checked_manifest(manifest, &BTreeMap::new(), Patience::Bounded).await?;
        let started = {
            let (_, id, plugin) = checked.topology.partitioners().next().expect("its sink has a plugin");
            let spec =
                InstanceSpec { config: plugin.config.clone(), limits: plugin.limits, log: Arc::new(NoLog) };
            let started = self.spec.factory.instantiate_partitioner(&plugin.info.digest, &spec);
            started.map_err(|error| DeployError::Start { node: id, error })?
        };
        Ok(Placer { plugin: started, _loaded: checked })
    }
}
