//! What pipelines keep, across revisions: which stores go on, which begin, and which are left alone.

use std::collections::BTreeMap;

use pelton_commitlog::mutant::Mutant;
use pelton_streams::topology::graph::changelog_topic;
use pelton_streams::topology::{Recorded, Source};
use pelton_streams::{Topology, TopologyError};
use serde::Serialize;

use super::Supervisor;
use crate::readers::Offsets;
use crate::refusal::DeployError;

/// What becomes of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum StoreFate {
    /// It goes on with what it has.
    Kept,
    /// It begins with nothing.
    New,
    /// No node has it any more. Its changelog stays, and what is read from now on is not in it: a node that has it again later
    /// is refused, unless nothing was read.
    Dropped,
}

/// A store, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoreChange {
    pub store: String,
    pub fate: StoreFate,
    /// The topic that has its changes.
    pub changelog: String,
}

/// What the stores of a topology mean and where their keys are, by name.
pub(super) fn stores_of(topology: &Topology) -> BTreeMap<String, String> {
    topology.stores().map(|store| (store.spec.name.clone(), topology.recorded(store))).collect()
}

/// Whether a store can go on, if there is one.
fn check_shape(
    topology: &Topology,
    store: &str,
    before: Option<&String>,
    now: &str,
) -> Result<(), DeployError> {
    let Some(before) = before else { return Ok(()) };
    let [before, now] = [before, now].map(|text| Recorded::read(text).shape);
    if before == now {
        return Ok(());
    }
    let changelog = changelog_topic(&topology.name, store);
    let [store, before, now] = [store, before, now].map(str::to_owned);
    Err(DeployError::StoreChanged { store, before, now, changelog })
}

/// Partitions that a refusal names.
const MISSED_SHOWN: usize = 5;

/// What was read, or will be read again, between two commits.
fn missed(before: &Offsets, now: &Offsets) -> Vec<String> {
    let mut missed = Vec::new();
    for (topic, partitions) in now {
        for (partition, offset) in partitions {
            let before = before.get(topic).and_then(|partitions| partitions.get(partition)).copied();
            match before.unwrap_or(0) {
                before if before < *offset => {
                    missed.push(format!("topic {topic}, partition {partition}: offsets {before} to {}", offset - 1));
                }
                before if before > *offset => missed.push(format!(
                    "topic {topic}, partition {partition}: its offset was set back from {before} to {offset}, what lies between \
                     would be in it twice"
                )),
                _ => {}
            }
        }
    }
    if missed.len() > MISSED_SHOWN {
        let more = missed.len() - MISSED_SHOWN;
        missed.truncate(MISSED_SHOWN);
        missed.push(format!("and {more} more partitions"));
    }
    missed
}

impl Supervisor {
    /// Whether the stores of a topology can go on with what is there, and the records of a key meet in one task.
    pub(super) fn check_stores(&self, topology: &Topology) -> Result<Vec<StoreChange>, DeployError> {
        let partitions: Vec<u32> = self.partitions_of_sources(topology);
        topology.check_partitions(&partitions)?;
        for output in &topology.outputs {
            let Some(sub) = output.changelog_of else { continue };
            let (partitions, topic) = self.partitions_of(topology, sub);
            let has = self.spec.io.partitions(&output.topic).unwrap_or(partitions);
            if has < partitions {
                let changelog = output.topic.clone();
                return Err(TopologyError::Grown { topic, partitions, changelog, has }.into());
            }
        }
        self.check_placements(topology)?;
        let inner = self.inner.lock();
        let nothing = BTreeMap::new();
        let (wanted, kept) =
            (stores_of(topology), inner.deployments.stores(&topology.name).unwrap_or(&nothing));
        let mut changes = Vec::new();
        for (store, shape) in &wanted {
            let changelog = changelog_topic(&topology.name, store);
            if let Some(other) = inner.deployments.owner_of_changelog(&changelog, &topology.name) {
                let (store, other) = (store.clone(), other.to_owned());
                return Err(DeployError::ChangelogOfAnother { store, changelog, other });
            }
            let fate = if kept.contains_key(store) { StoreFate::Kept } else { StoreFate::New };
            check_shape(topology, store, kept.get(store), shape)?;
            changes.push(StoreChange { store: store.clone(), fate, changelog });
        }
        for store in kept.keys().filter(|store| !wanted.contains_key(*store)) {
            let changelog = changelog_topic(&topology.name, store);
            changes.push(StoreChange { store: store.clone(), fate: StoreFate::Dropped, changelog });
        }
        Ok(changes)
    }

    /// Whether the stores of a topology hold what its nodes keep: another version of the server may lay something out differently.
    fn check_shapes(&self, topology: &Topology) -> Result<(), DeployError> {
        let inner = self.inner.lock();
        let Some(kept) = inner.deployments.stores(&topology.name) else { return Ok(()) };
        stores_of(topology)
            .iter()
            .try_for_each(|(store, shape)| check_shape(topology, store, kept.get(store), shape))
    }

    /// Whether what runs can go on with what is there.
    pub(super) fn check_stored(&self, topology: &Topology) -> Result<(), DeployError> {
        self.check_shapes(topology)?;
        self.check_placements(topology)
    }

    /// Whether a deployment has stores that no node had, or no node has any more those that one had.
    pub(super) fn moves_stores(&self, topology: &Topology) -> bool {
        let (wanted, inner) = (stores_of(topology), self.inner.lock());
        let (name, nothing) = (&topology.name, BTreeMap::new());
        let away = inner.deployments.away(name).unwrap_or(&nothing);
        let kept = inner.deployments.stores(name).into_iter().flat_map(BTreeMap::keys);
        kept.into_iter().any(|store| wanted.contains_key(store) == away.contains_key(store))
    }

    /// What is committed, if no store that a node has again misses something of it.
    pub(super) async fn check_missed(&self, topology: &Topology) -> Result<Offsets, DeployError> {
        let name = &topology.name;
        let committed = self.spec.io.committed(name).await;
        let committed = committed.map_err(|error| DeployError::Offsets { pipeline: name.clone(), error })?;
        let wanted = stores_of(topology);
        let inner = self.inner.lock();
        for (store, away) in inner.deployments.away(name).into_iter().flatten() {
            let missed = missed(&away.offsets, &committed);
            if wanted.contains_key(store) && !missed.is_empty() {
                let left_by = match away.revision {
                    0 => "an earlier pipeline of this name".to_owned(),
                    revision => format!("revision {revision}"),
                };
                let (store, missed, changelog) =
                    (store.clone(), missed.join(", "), changelog_topic(name, store));
                return Err(DeployError::StoreMissed { store, left_by, missed, changelog });
            }
        }
        Ok(committed)
    }

    /// Whether what is kept of a key is in the task that is given the key's records.
    pub(super) fn check_placements(&self, topology: &Topology) -> Result<(), DeployError> {
        let inner = self.inner.lock();
        let Some(kept) = inner.deployments.stores(&topology.name) else { return Ok(()) };
        for store in topology.stores() {
            let changelog = changelog_topic(&topology.name, &store.spec.name);
            // In one partition everything is in its place, and what is not there yet is nowhere else.
            let has_many = self.spec.io.partitions(&changelog).is_some_and(|partitions| partitions > 1);
            let (Some(before), now) = (kept.get(&store.spec.name), topology.recorded(store)) else {
                continue;
            };
            let (before, now) = (Recorded::read(before), Recorded::read(&now));
            if has_many && !before.is_in_place(&now) && !Mutant::MovedKeysAccepted.is_on() {
                let text = |recorded: Recorded<'_>| recorded.placement.unwrap_or_default().to_owned();
                let (store, before, now) = (store.spec.name.clone(), text(before), text(now));
                return Err(DeployError::StoreMoved { store, before, now });
            }
        }
        Ok(())
    }

    /// Whether a pipeline keeps something that belongs to its offsets: by what is deployed, or else by what it has left when it
    /// was deleted.
    pub fn keeps_state(&self, name: &str) -> bool {
        let inner = self.inner.lock();
        match inner.runners.get(name).and_then(|runner| runner.topology()) {
            Some(topology) => !stores_of(topology).is_empty(),
            None => inner.deployments.stores(name).is_some_and(|stores| !stores.is_empty()),
        }
    }

    /// Creates the changelog of a store of a sub-topology.
    pub(super) async fn ensure_changelog(
        &self,
        topology: &Topology,
        changelog: &str,
        sub: usize,
    ) -> Result<(), DeployError> {
        let (partitions, _) = self.partitions_of(topology, sub);
        let made = self.spec.log.ensure_changelog(changelog, partitions).await;
        made.map_err(|error| DeployError::OutputTopic { topic: changelog.to_owned(), error })
    }

    /// Creates the topics between the parts of a pipeline.
    pub(super) async fn ensure_repartitions(&self, topology: &Topology) -> Result<(), DeployError> {
        for output in &topology.outputs {
            let Some(partitions) = output.repartition else { continue };
            let made = self.spec.log.ensure_repartition(&output.topic, partitions).await;
            made.map_err(|error| DeployError::OutputTopic { topic: output.topic.clone(), error })?;
        }
        Ok(())
    }

    fn partitions_of_sources(&self, topology: &Topology) -> Vec<u32> {
        let count = |source: &Source| self.spec.io.partitions(&source.topic).or(source.repartition);
        topology.sources.iter().map(|source| count(source).unwrap_or(0)).collect()
    }

    /// How many tasks a sub-topology has, and the topic of it that has so many partitions.
    pub(super) fn partitions_of(&self, topology: &Topology, sub: usize) -> (u32, String) {
        let partitions = self.partitions_of_sources(topology);
        let sources = topology.sub_topologies[sub].sources.iter();
        let most = sources.map(|source| (partitions[*source], topology.sources[*source].topic.clone()));
        most.max().unwrap_or_default()
    }
}
