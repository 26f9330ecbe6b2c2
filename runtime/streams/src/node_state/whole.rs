//! All that a node keeps, at once: for tests of plugins, which begin with some state and look at what is there afterwards. No task
//! reads or writes it in this way.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::timers::names_of;
use super::windows::Windows;
use super::{Budget, Failed};
use crate::manifest::stores::NodeStoreSpec;
use crate::operator::TimerDomain;
use crate::operator::key::read_i64;
use crate::state::{Blob, KeyRange, StateError, StoreIndex, TaskState, prefix_end};
use crate::topology::{Topology, Vertex};

/// An entry of a store, or a window.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Its key, as the plugin has it.
    pub key: Vec<u8>,
    /// When the window begins, in milliseconds since 1970-01-01 UTC; none in a store without windows.
    pub start: Option<i64>,
    /// Its value.
    pub value: Vec<u8>,
}

/// A timer that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetTimer {
    /// Whose time it waits for.
    pub domain: TimerDomain,
    /// Its name.
    pub name: Vec<u8>,
    /// When it is due, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
}

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whole {
    /// The entries of each store that the plugin names, in the order of keys and starts; windows that are forgotten are not there.
    pub stores: BTreeMap<String, Vec<Entry>>,
    /// Its timers, by domain and name.
    pub timers: Vec<SetTimer>,
}

/// State that a node cannot begin with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BeginError {
    /// It has no such store.
    #[error("the plugin has no store `{store}`; it has {known}")]
    Unknown {
        /// The store.
        store: String,
        /// Those that it has.
        known: String,
    },
    /// A store of windows needs the start of each, and another one has none.
    #[error("an entry of the store `{store}` {wrong}")]
    Start {
        /// The store.
        store: String,
        /// What is wrong.
        wrong: &'static str,
    },
    /// It cannot be written.
    #[error("{0}")]
    Refused(String),
}

/// Where the stores of a node are, in the order of its specs; behind them that of its timers.
fn indexes(topology: &Topology, node: usize) -> Vec<StoreIndex> {
    let graphs = topology.sub_topologies.iter().filter_map(|sub| sub.graph.as_ref());
    graphs.flat_map(|graph| graph.stores_of(Vertex::Node(node))).collect()
}

/// What a node of a task keeps now.
///
/// # Errors
/// A store cannot be read.
pub fn read(topology: &Topology, node: usize, state: &mut TaskState) -> Result<Whole, StateError> {
    let (specs, indexes) = (&topology.nodes[node].stores, indexes(topology, node));
    let mut whole = Whole::default();
    for (spec, &index) in specs.iter().zip(&indexes) {
        let entries = match spec.retention_ms {
            None => entries(index, state)?,
            Some(retention_ms) => windows(Windows::new(index, retention_ms), state)?,
        };
        whole.stores.insert(spec.name.clone(), entries);
    }
    if let Some(&index) = indexes.get(specs.len()) {
        for domain in [TimerDomain::StreamTime, TimerDomain::WallClock] {
            whole.timers.extend(timers(index, state, domain)?);
        }
    }
    Ok(whole)
}

/// Gives a store of a node entries before its task does anything.
///
/// # Errors
/// It has no such store, or the entries are of another kind.
pub fn begin_with(
    topology: &Topology,
    node: usize,
    state: &mut TaskState,
    store: &str,
    entries: &[Entry],
) -> Result<(), BeginError> {
    let specs: &[NodeStoreSpec] = &topology.nodes[node].stores;
    let Some(place) = specs.iter().position(|spec| spec.name == store) else {
        let known: Vec<String> = specs.iter().map(|spec| format!("`{}`", spec.name)).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(BeginError::Unknown { store: store.to_owned(), known });
    };
    let index = indexes(topology, node)[place];
    let start = |wrong| BeginError::Start { store: store.to_owned(), wrong };
    for Entry { key, start: at, value } in entries {
        match (specs[place].retention_ms, at) {
            (None, None) => state.put(index, key, Some(Blob::from(value.as_slice()))),
            (None, Some(_)) => return Err(start("has a start, and the store has no windows")),
            (Some(_), None) => return Err(start("has no start, and the store has windows")),
            (Some(retention_ms), Some(at)) => {
                let mut written = 0;
                let mut budget = Budget { limit_bytes: u64::MAX, written: &mut written };
                let put =
                    Windows::new(index, retention_ms).put(state, &[key], &[*at], &[Some(value)], &mut budget);
                put.map_err(|failed| BeginError::Refused(reason(failed)))?;
            }
        }
    }
    Ok(())
}

fn reason(failed: Failed) -> String {
    match failed {
        Failed::Refused(refused) => refused.0,
        Failed::State(error) => error.to_string(),
    }
}

fn entries(index: StoreIndex, state: &TaskState) -> Result<Vec<Entry>, StateError> {
    let mut found = Vec::new();
    state.range(index, KeyRange::ALL, &mut |key, value| {
        found.push(Entry { key: key.to_vec(), start: None, value: value.to_vec() });
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

fn windows(mut windows: Windows, state: &mut TaskState) -> Result<Vec<Entry>, StateError> {
    let found = windows.all(state)?.into_iter();
    Ok(found.map(|(key, start, value)| Entry { key, start: Some(start), value }).collect())
}

fn timers(index: StoreIndex, state: &TaskState, domain: TimerDomain) -> Result<Vec<SetTimer>, StateError> {
    let from = names_of(domain);
    let to = prefix_end(&from);
    let range = KeyRange { from: &from, to: to.as_deref(), reverse: false };
    let mut found = Vec::new();
    state.range(index, range, &mut |place, at| {
        if let Some((at, _)) = read_i64(at) {
            found.push(SetTimer { domain, name: place[from.len()..].to_vec(), at });
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::node_state::{ColumnOut, NodeState, NodeStores};
    use crate::plugin::PluginInfo;
    use crate::state::{MemoryState, StateLimits};
    use crate::{Digest, PluginManifest, World};

    const PLUGIN: &str = "name='p'\nversion='1'\nworld='transform-timer'\n[stores.seen]\n[stores.windows]\n\
                          kind='window'\nretention='1m'\n";
    const PIPELINE: &str = "name='p'\n[[source]]\nid='in'\ntopic='in'\n[[node]]\nid='n'\nfrom='in'\nplugin='p'\n\
                            [[sink]]\nfrom='n'\ntopic='out'\n";

    fn stateful_topology() -> Topology {
        let manifest = Some(PluginManifest::parse(PLUGIN).expect("is valid"));
        let info =
            PluginInfo { digest: Digest::new([0; 32]), world: World::TransformTimer, manifest, bytes: 1 };
        let pipeline = Manifest::parse(PIPELINE).expect("is valid");
        Topology::link(&pipeline, &BTreeMap::from([("n".to_owned(), info)])).expect("links")
    }

    fn column(fields: &[&[u8]]) -> ColumnOut {
        let mut column = ColumnOut::default();
        fields.iter().for_each(|field| column.push(Some(field)));
        column
    }

    fn entry(key: &str, start: Option<i64>, value: &str) -> Entry {
        Entry { key: key.into(), start, value: value.into() }
    }

    #[test]
    fn what_was_begun_with_is_there_beside_what_a_plugin_has_done() {
        let topology = stateful_topology();
        let specs = topology.sub_topologies[0].graph.as_ref().expect("has state").store_specs();
        let mut state =
            TaskState::new(Box::new(MemoryState::new(specs.len())), &specs, StateLimits::default());
        let seen = [entry("a", None, "1"), entry("b", None, "2")];
        begin_with(&topology, 0, &mut state, "seen", &seen).expect("is written");
        let windows = [entry("k", Some(5), "w"), entry("k", Some(99_000), "v")];
        begin_with(&topology, 0, &mut state, "windows", &windows).expect("is written");
        let stores = Box::new(NodeStores::new(&topology.nodes[0].stores, &indexes(&topology, 0)));
        let mut node = NodeState::new(Box::new(state), stores, 1 << 20);
        node.put("seen", column(&[b"b"]).as_in(), column(&[b"3"]).as_in()).expect("is written");
        node.set_timers(TimerDomain::WallClock, column(&[b"t"]).as_in(), &[7]).expect("is set");
        node.set_timers(TimerDomain::StreamTime, column(&[b"u"]).as_in(), &[8]).expect("is set");
        node.cancel_timers(TimerDomain::StreamTime, column(&[b"u"]).as_in()).expect("is taken away");
        let (mut state, _, used) = node.end();
        used.expect("stores can be used");
        let whole = read(&topology, 0, &mut state).expect("is read");
        assert_eq!(whole.stores["seen"], [entry("a", None, "1"), entry("b", None, "3")]);
        // The first window was over when the second one came: the retention is a minute.
        assert_eq!(whole.stores["windows"], [entry("k", Some(99_000), "v")]);
        let timer = SetTimer { domain: TimerDomain::WallClock, name: b"t".to_vec(), at: 7 };
        assert_eq!(whole.timers, [timer]);
    }

    #[test]
    fn what_no_node_can_begin_with() {
        let topology = stateful_topology();
        let specs = topology.sub_topologies[0].graph.as_ref().expect("has state").store_specs();
        let mut state =
            TaskState::new(Box::new(MemoryState::new(specs.len())), &specs, StateLimits::default());
        let mut fails = |store: &str, entry: Entry, expect: &str| {
            let error = begin_with(&topology, 0, &mut state, store, &[entry]).expect_err("cannot be");
            assert_eq!(error.to_string(), expect);
        };
        fails("sene", entry("a", None, ""), "the plugin has no store `sene`; it has `seen`, `windows`");
        fails(
            "seen",
            entry("a", Some(1), ""),
            "an entry of the store `seen` has a start, and the store has no windows",
        );
        fails(
            "windows",
            entry("a", None, ""),
            "an entry of the store `windows` has no start, and the store has windows",
        );
        fails("windows", entry("a", Some(-1), ""), "starts[0] is -1, which is no time for a window");
    }
}
