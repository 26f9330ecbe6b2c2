//! Plugins in their places: what runs with which settings, and what it keeps.

use std::collections::BTreeMap;

use super::{Node, OutputPartitioner, TopologyError, output_names};
use crate::limits::{LimitsSpec, PluginLimits};
use crate::manifest::consumer::ConsumerSpec;
use crate::manifest::operator::OperatorPlugin as OperatorPluginSpec;
use crate::manifest::stores::{self, NodeStoreSpec, StoreError};
use crate::manifest::{NodeSpec, SinkPartitioner, SinkSpec};
use crate::plugin::PluginInfo;
use crate::plugin_manifest::configure_untyped;
use crate::world::Place;

/// A plugin that an operator calls.
#[derive(Debug, Clone, PartialEq)]
pub struct OperatorPlugin {
    /// The component that runs.
    pub info: PluginInfo,
    /// What it is configured with, defaults filled in.
    pub config: Vec<(String, String)>,
    /// What it may use.
    pub limits: PluginLimits,
}

impl OperatorPlugin {
    /// What its values mean.
    pub(super) fn shape(&self) -> String {
        match &self.info.manifest {
            Some(manifest) => format!("plugin {}, format {}", manifest.name, manifest.format),
            None => "a plugin without a name".to_owned(),
        }
    }
}

/// The plugin that a node aggregates with.
pub(super) fn operator_plugin(
    id: &str,
    spec: &OperatorPluginSpec,
    plugins: &BTreeMap<String, PluginInfo>,
) -> Result<OperatorPlugin, TopologyError> {
    let node = || id.to_owned();
    let info = plugins.get(id).ok_or_else(|| TopologyError::NoPlugin(node()))?;
    if info.world.spec().place != Place::Aggregate {
        return Err(TopologyError::NoAggregator { node: node(), world: info.world });
    }
    let (config, limits) = settings(id, info, &spec.config, &spec.limits)?;
    Ok(OperatorPlugin { info: info.clone(), config, limits })
}

/// Who places the records of a sink.
pub(super) fn output_partitioner(
    spec: &SinkSpec,
    plugins: &BTreeMap<String, PluginInfo>,
) -> Result<OutputPartitioner, TopologyError> {
    let plugin = match &spec.partitioner {
        SinkPartitioner::Native(kind) => return Ok(OutputPartitioner::Native(*kind)),
        SinkPartitioner::Plugin(plugin) => plugin,
    };
    let id = SinkSpec::plugin_id(&spec.topic);
    let info = plugins.get(&id).ok_or_else(|| TopologyError::NoPlugin(id.clone()))?;
    if info.world.spec().place != Place::Topic {
        return Err(TopologyError::NoPartitioner { topic: spec.topic.clone(), world: info.world });
    }
    let (config, limits) = settings(&id, info, &plugin.config, &plugin.limits)?;
    Ok(OutputPartitioner::Plugin(Box::new(OperatorPlugin { info: info.clone(), config, limits })))
}

/// The settings and the limits of a plugin.
fn settings(
    node: &str,
    info: &PluginInfo,
    given: &BTreeMap<String, toml::Value>,
    limits: &LimitsSpec,
) -> Result<(Vec<(String, String)>, PluginLimits), TopologyError> {
    let config = match &info.manifest {
        Some(manifest) => manifest.configure(given),
        None => configure_untyped(given),
    };
    let config = config.map_err(|error| TopologyError::Config { node: node.to_owned(), error })?;
    let own = info.manifest.as_ref().map(|manifest| manifest.limits).unwrap_or_default();
    let limits = PluginLimits::resolve(limits, &own)
        .map_err(|error| TopologyError::Limits { node: node.to_owned(), error })?;
    Ok((config, limits))
}

pub(super) fn node(
    spec: &NodeSpec,
    info: &PluginInfo,
    dead_letter: Option<usize>,
) -> Result<Node, TopologyError> {
    let place = info.world.spec().place;
    if !matches!(place, Place::Node | Place::End) {
        return Err(TopologyError::WrongWorld { node: spec.id.clone(), world: info.world });
    }
    let consumer = consumer(spec, info)?;
    let (config, limits) = settings(&spec.id, info, &spec.config, &spec.limits)?;
    let stores =
        stores_of(spec, info).map_err(|error| TopologyError::Stores { node: spec.id.clone(), error })?;
    Ok(Node {
        id: spec.id.clone(),
        plugin: info.clone(),
        config,
        limits,
        on_error: spec.on_error.clone(),
        dead_letter,
        outputs: if consumer.is_some() { Vec::new() } else { vec![Vec::new(); output_names(info).len()] },
        keeps_key: spec.keeps_key,
        stores,
        has_timers: info.world.has_timers(),
        by_partition: spec.by_partition,
        store: spec.store,
        consumer,
    })
}

/// How records are given to a plugin that acts on the outside, if this is one.
fn consumer(spec: &NodeSpec, info: &PluginInfo) -> Result<Option<ConsumerSpec>, TopologyError> {
    let (node, world) = (spec.id.clone(), info.world);
    if world.spec().place != Place::End {
        return match spec.consumer {
            Some(_) => Err(TopologyError::NoConsumer { node, world }),
            None => Ok(None),
        };
    }
    let consumer = spec.consumer.clone().unwrap_or_default();
    let granted =
        [("allow_http", !consumer.http.grants.is_empty()), ("secrets", !consumer.http.secrets.is_empty())];
    match granted.into_iter().find(|(_, is_there)| *is_there && !world.has_http()) {
        Some((key, _)) => Err(TopologyError::NoNetwork { node, key, world }),
        None => Ok(Some(consumer)),
    }
}

/// The stores of a node.
fn stores_of(spec: &NodeSpec, info: &PluginInfo) -> Result<Vec<NodeStoreSpec>, StoreError> {
    let world = info.world.name();
    if !info.world.needs_store() {
        let given = !spec.stores.is_empty() || spec.by_partition || spec.store.is_some();
        return if given { Err(StoreError::KeepsNothing { world }) } else { Ok(Vec::new()) };
    }
    let nothing = BTreeMap::new();
    let needs = info.manifest.as_ref().map_or(&nothing, |manifest| &manifest.stores);
    let found = stores::resolve(needs, &spec.stores)?;
    if found.is_empty() && !info.world.has_timers() { Err(StoreError::None { world }) } else { Ok(found) }
}
