//! What a task uses of the thread that it runs on.

use crate::operator::{GlobalTables, LentAggregator};
use crate::plugin::{AggregatorPlugin, PartitionerPlugin, Plugin};
use crate::sink::Sink;

/// The plugins of one thread: one instance for each node, whichever task calls it.
#[derive(Default)]
pub struct Plugins {
    nodes: Vec<Option<Box<dyn Plugin>>>,
    aggregators: Vec<Option<Box<dyn AggregatorPlugin>>>,
    partitioners: Vec<Option<Box<dyn PartitionerPlugin>>>,
}

fn set<T: ?Sized>(all: &mut Vec<Option<Box<T>>>, index: usize, plugin: Box<T>) {
    if all.len() <= index {
        all.resize_with(index + 1, || None);
    }
    all[index] = Some(plugin);
}

impl Plugins {
    /// Whether the node (an index in [`Topology::nodes`]) has its instance.
    pub fn has(&self, node: usize) -> bool {
        self.nodes.get(node).is_some_and(Option::is_some)
    }

    /// Whether the operator (an index in [`Topology::operators`]) has its instance.
    pub fn has_aggregator(&self, operator: usize) -> bool {
        self.aggregators.get(operator).is_some_and(Option::is_some)
    }

    /// Gives an operator the plugin that it aggregates with.
    pub fn set_aggregator(&mut self, operator: usize, plugin: Box<dyn AggregatorPlugin>) {
        set(&mut self.aggregators, operator, plugin);
    }

    /// The plugin that an operator aggregates with, if it does.
    pub(super) fn aggregator(&mut self, operator: usize) -> LentAggregator<'_> {
        self.aggregators.get_mut(operator)?.as_deref_mut()
    }

    /// Whether the output (an index in [`Topology::outputs`]) has the instance of its partitioner.
    pub fn has_partitioner(&self, output: usize) -> bool {
        self.partitioners.get(output).is_some_and(Option::is_some)
    }

    /// Gives an output the plugin that places its records.
    pub fn set_partitioner(&mut self, output: usize, plugin: Box<dyn PartitionerPlugin>) {
        set(&mut self.partitioners, output, plugin);
    }

    /// The plugin that places the records of an output, if one does.
    pub(super) fn partitioner(&mut self, output: usize) -> Option<&mut (dyn PartitionerPlugin + 'static)> {
        self.partitioners.get_mut(output)?.as_deref_mut()
    }

    /// Gives a node its instance.
    pub fn set(&mut self, node: usize, plugin: Box<dyn Plugin>) {
        set(&mut self.nodes, node, plugin);
    }

    pub(super) fn get(&mut self, node: usize) -> &mut dyn Plugin {
        let plugin = self.nodes.get_mut(node).and_then(Option::as_mut);
        plugin.expect("every node that a step reaches has its instance").as_mut()
    }
}

/// What a step uses of the thread that it runs on.
pub struct Outside<'a> {
    /// Those of the task's nodes, at least.
    pub plugins: &'a mut Plugins,
    /// Where records go.
    pub sink: &'a mut dyn Sink,
    /// By index in [`Topology::globals`].
    pub globals: &'a dyn GlobalTables,
    /// Asked after each failed call: the search for a record that takes a plugin's whole deadline each time must not hold up a
    /// stop.
    pub interrupted: &'a dyn Fn() -> bool,
}
