//! Deployments are records: plugins, pipelines and tables live in the compacted topic `__pelton_deployments`, and
//! what runs is what a replay of it says. This module is that replay, and the records; it appends nothing itself.
//!
//! | key | value |
//! |---|---|
//! | `plugin/<digest>/<index>` | bytes `index * CHUNK_BYTES ..` of the component |
//! | `plugin/<digest>` | JSON [`PluginRecord`]; written after the chunks, so a plugin that has one is whole |
//! | `pipeline/<name>/<revision>` | JSON [`Revision`]; the last [`KEPT_REVISIONS`] are kept |
//! | `pipeline/<name>` | JSON [`Live`]: which revision runs, and whether it is paused |
//! | `table/<name>` | JSON [`TableDefinition`] of a table that stands alone |
//! | `state/<name>` | JSON: what the stores of that pipeline hold, by name, those of earlier revisions among them |
//! | `away/<name>` | JSON: [`Away`] of those stores that no node has now, by name |
//! | `limits/<name>` | JSON [`PipelineLimits`] of that pipeline |
//! | `between/<name>` | JSON: the topics between the parts of that pipeline, those of earlier revisions among them |
//!
//! A null value deletes. Unknown keys are passed over: a newer version may have written them. Of chunks only the
//! offsets are kept in memory: a component is read from the log when it is compiled or written anew, and never
//! otherwise.
//!
//! A component goes away when it was deployed once, no kept revision names it, and a newer one has its name; or when it was
//! never deployed, and so many newer ones were not either ([`TRIALS_MAX`], [`UNDEPLOYED_MAX`]).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use bytes::Bytes;
use pelton_streams::Digest;
use pelton_streams::tables::TableDefinition;
use pelton_streams::topology::graph::changelog_topic;
use serde::{Deserialize, Serialize};

use crate::limits::PipelineLimits;
use crate::readers::Offsets;

pub mod history;

/// The topic. Clients cannot produce to it.
pub const TOPIC: &str = "__pelton_deployments";
/// A chunk of a component. Well below `max.message.bytes`, so that no setting can make a plugin undeployable.
pub const CHUNK_BYTES: usize = 256 << 10;
/// Revisions of a pipeline that can still be looked at, the live one among them.
pub const KEPT_REVISIONS: usize = 10;
/// What a record takes besides a manifest or a component, about.
const RECORD_BYTES: u64 = 512;

/// Components that were pushed to be tried alone: the newest ones stay.
pub const TRIALS_MAX: usize = 10;
/// Other components that no revision has ever named: the newest ones stay.
pub const UNDEPLOYED_MAX: usize = 100;

/// A key with its value; `None` deletes the key.
pub type DeploymentRecord = (String, Option<Bytes>);

/// A component that was pushed whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PluginRecord {
    pub bytes: u64,
    pub chunks: u32,
    pub pushed_at_ms: i64,
    /// From its `plugin.toml`, where it has one.
    pub name: Option<String>,
    pub version: Option<String>,
    pub world: String,
    /// The text of its .minisig file, if it was pushed with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// It was pushed to be tried alone: its name does not mean it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trial: bool,
    /// A revision named it once. Follows from the revisions; a snapshot keeps it for those that are gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deployed: bool,
}

/// What was deployed: the manifest as the user wrote it, and which component each node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub manifest: String,
    /// By node id: `sha256:…`.
    pub plugins: BTreeMap<String, String>,
    pub deployed_at_ms: i64,
    /// It is that one again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rolled_back_to: Option<u64>,
}

/// What should run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    pub revision: u64,
    pub paused: bool,
}

/// One pipeline's history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PipelineHistory {
    pub revisions: BTreeMap<u64, Revision>,
    pub live: Option<Live>,
}

/// Where a component that is whole is in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredComponent {
    /// Its digest, in hex.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// The offset of each chunk, in order.
    pub chunks: Vec<i64>,
}

/// A store that no node of a pipeline has any more.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Away {
    /// The last revision that had it.
    pub revision: u64,
    /// What was committed then, by topic and partition: what was read since is not in it.
    pub offsets: Offsets,
}

/// What a replay of the topic gives.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Deployments {
    plugins: BTreeMap<String, PluginRecord>,
    /// Offsets by digest and index.
    chunks: BTreeMap<(String, u32), i64>,
    pipelines: BTreeMap<String, PipelineHistory>,
    tables: BTreeMap<String, TableDefinition>,
    /// By pipeline: what each of its stores holds. It stays when the pipeline goes, as the changelogs do.
    stores: BTreeMap<String, BTreeMap<String, String>>,
    /// By pipeline: those of its stores that no node has.
    away: BTreeMap<String, BTreeMap<String, Away>>,
    limits: BTreeMap<String, PipelineLimits>,
    /// By pipeline: the topics between its parts. It stays when the pipeline goes, as they do.
    between: BTreeMap<String, BTreeSet<String>>,
    /// There are records of kinds that this version does not know.
    has_unknown: bool,
}

/// A record that a replay cannot read. The topic is ours alone, so this is damage or a newer version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the record `{key}` of {TOPIC} cannot be read: {reason}. Start the version of pelton that wrote it, or restore the \
     directory of that partition from a copy"
)]
pub struct BadRecord {
    pub key: String,
    pub reason: String,
}

/// A replay under way. What cannot be read is an error unless a later record of its key takes its place.
#[derive(Debug, Default)]
pub struct Replay {
    state: Deployments,
    bad: BTreeMap<Vec<u8>, BadRecord>,
}

impl Replay {
    /// Takes the next record of the log.
    pub fn take(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) {
        match self.state.apply(offset, key, value) {
            Ok(()) => drop(self.bad.remove(key)),
            Err(error) => drop(self.bad.insert(key.to_vec(), error)),
        }
    }

    /// What the records say, if all of them can be read and nothing is missing among them.
    pub fn finish(self) -> Result<Deployments, BadRecord> {
        let Replay { state, bad } = self;
        if let Some(error) = bad.into_values().next() {
            return Err(error);
        }
        for (name, history) in &state.pipelines {
            if let Some(Live { revision, .. }) = history.live
                && !history.revisions.contains_key(&revision)
            {
                let reason = format!("it says that revision {revision} runs, and there is no such revision");
                return Err(BadRecord { key: format!("pipeline/{name}"), reason });
            }
        }
        Ok(state)
    }
}

impl Deployments {
    /// Takes one record, in the order of the log.
    pub fn apply(&mut self, offset: i64, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        let bad = |reason: String| BadRecord { key: String::from_utf8_lossy(key).into_owned(), reason };
        let text = std::str::from_utf8(key).map_err(|error| bad(error.to_string()))?;
        let json = |error: serde_json::Error| bad(error.to_string());
        let parts: Vec<&str> = text.split('/').collect();
        match (parts.as_slice(), value) {
            (["plugin", digest, index], value) => {
                let index = index.parse().map_err(|_| bad("the chunk's index is no number".to_owned()))?;
                let slot = ((*digest).to_owned(), index);
                let _ = match value {
                    Some(_) => self.chunks.insert(slot, offset),
                    None => self.chunks.remove(&slot),
                };
            }
            (["plugin", digest], Some(value)) => {
                self.plugins.insert((*digest).to_owned(), serde_json::from_slice(value).map_err(json)?);
            }
            (["plugin", digest], None) => drop(self.plugins.remove(*digest)),
            (["pipeline", name, revision], value) => {
                let number = revision.parse().map_err(|_| bad("the revision is no number".to_owned()))?;
                let history = self.pipelines.entry((*name).to_owned()).or_default();
                match value {
                    Some(value) => {
                        let revision: Revision = serde_json::from_slice(value).map_err(json)?;
                        for digest in revision.plugins.values() {
                            if let Some(record) = self.plugins.get_mut(hex_of(digest)) {
                                record.deployed = true;
                            }
                        }
                        history.revisions.insert(number, revision);
                    }
                    None => drop(history.revisions.remove(&number)),
                }
                self.forget_if_empty(name);
            }
            (["pipeline", name], Some(value)) => {
                let live = serde_json::from_slice(value).map_err(json)?;
                self.pipelines.entry((*name).to_owned()).or_default().live = Some(live);
            }
            (["pipeline", name], None) => {
                if let Some(history) = self.pipelines.get_mut(*name) {
                    history.live = None;
                }
                self.forget_if_empty(name);
            }
            (["table", name], Some(value)) => {
                self.tables.insert((*name).to_owned(), serde_json::from_slice(value).map_err(json)?);
            }
            (["table", name], None) => drop(self.tables.remove(*name)),
            (["state", name], Some(value)) => {
                self.stores.insert((*name).to_owned(), serde_json::from_slice(value).map_err(json)?);
            }
            (["state", name], None) => drop(self.stores.remove(*name)),
            (["away", name], Some(value)) => {
                self.away.insert((*name).to_owned(), serde_json::from_slice(value).map_err(json)?);
            }
            (["away", name], None) => drop(self.away.remove(*name)),
            (["limits", name], Some(value)) => {
                self.limits.insert((*name).to_owned(), serde_json::from_slice(value).map_err(json)?);
            }
            (["limits", name], None) => drop(self.limits.remove(*name)),
            (["between", name], Some(value)) => {
                self.between.insert((*name).to_owned(), serde_json::from_slice(value).map_err(json)?);
            }
            (["between", name], None) => drop(self.between.remove(*name)),
            _ => self.has_unknown = true,
        }
        Ok(())
    }

    fn forget_if_empty(&mut self, name: &str) {
        if self
            .pipelines
            .get(name)
            .is_some_and(|history| history.live.is_none() && history.revisions.is_empty())
        {
            self.pipelines.remove(name);
        }
    }

    /// The plugins that are whole, by digest.
    pub fn plugins(&self) -> &BTreeMap<String, PluginRecord> {
        &self.plugins
    }

    /// Every pipeline that has a live revision.
    pub fn live(&self) -> impl Iterator<Item = (&str, Live, &Revision)> {
        self.pipelines.iter().filter_map(|(name, history)| {
            let live = history.live?;
            Some((name.as_str(), live, history.revisions.get(&live.revision)?))
        })
    }

    /// One pipeline's history.
    pub fn pipeline(&self, name: &str) -> Option<&PipelineHistory> {
        self.pipelines.get(name)
    }

    /// The tables that stand alone, by name.
    pub fn tables(&self) -> &BTreeMap<String, TableDefinition> {
        &self.tables
    }

    /// What the stores of a pipeline hold, by name.
    pub fn stores(&self, pipeline: &str) -> Option<&BTreeMap<String, String>> {
        self.stores.get(pipeline)
    }

    /// The pipeline besides `but` that has its changes in a topic.
    pub fn owner_of_changelog(&self, changelog: &str, but: &str) -> Option<&str> {
        let is_there = |(name, stores): &(&String, &BTreeMap<String, String>)| {
            stores.keys().any(|store| changelog_topic(name, store) == changelog)
        };
        let others = self.stores.iter().filter(|(name, _)| *name != but);
        others.into_iter().find(is_there).map(|(name, _)| name.as_str())
    }

    /// What says that a pipeline has these stores from now on. Nothing if that is known.
    pub fn keep_stores(&self, pipeline: &str, stores: BTreeMap<String, String>) -> Option<DeploymentRecord> {
        let before = self.stores.get(pipeline);
        let mut kept = before.cloned().unwrap_or_default();
        kept.extend(stores);
        let is_new = !kept.is_empty() && before != Some(&kept);
        is_new.then(|| (format!("state/{pipeline}"), Some(json(&kept))))
    }

    /// The topics between the parts of a pipeline, those of earlier revisions among them.
    pub fn between(&self, pipeline: &str) -> Option<&BTreeSet<String>> {
        self.between.get(pipeline)
    }

    /// What says that a pipeline has these topics between its parts from now on. Nothing if that is known.
    pub fn keep_between<'t>(
        &self,
        pipeline: &str,
        topics: impl Iterator<Item = &'t String>,
    ) -> Option<DeploymentRecord> {
        let before = self.between.get(pipeline);
        let mut kept = before.cloned().unwrap_or_default();
        kept.extend(topics.cloned());
        let is_new = !kept.is_empty() && before != Some(&kept);
        is_new.then(|| (format!("between/{pipeline}"), Some(json(&kept))))
    }

    /// Those of the stores of a pipeline that no node has.
    pub fn away(&self, pipeline: &str) -> Option<&BTreeMap<String, Away>> {
        self.away.get(pipeline)
    }

    /// What says which stores of a pipeline no node has from now on, if nodes have `wanted`. Nothing if that is known.
    pub fn leave_stores(
        &self,
        pipeline: &str,
        wanted: impl Fn(&str) -> bool,
        offsets: &Offsets,
    ) -> Option<DeploymentRecord> {
        let nothing = BTreeMap::new();
        let before = self.away.get(pipeline).unwrap_or(&nothing);
        let live = self.pipelines.get(pipeline).and_then(|history| history.live);
        let revision = live.map_or(0, |live| live.revision);
        let kept = self.stores.get(pipeline).into_iter().flat_map(BTreeMap::keys);
        let left = kept.filter(|store| !wanted(store));
        let now: BTreeMap<String, Away> = left
            .map(|store| {
                let away = before.get(store).cloned();
                let away = away.unwrap_or_else(|| Away { revision, offsets: offsets.clone() });
                (store.clone(), away)
            })
            .collect();
        let value = (!now.is_empty()).then(|| json(&now));
        (now != *before).then(|| (format!("away/{pipeline}"), value))
    }

    /// What says that nothing is known of what a pipeline has kept, in its stores and between its parts.
    pub fn forget_stores(&self, pipeline: &str) -> Vec<DeploymentRecord> {
        let state = self.stores.contains_key(pipeline).then(|| (format!("state/{pipeline}"), None));
        let away = self.away.contains_key(pipeline).then(|| (format!("away/{pipeline}"), None));
        let between = self.between.contains_key(pipeline).then(|| (format!("between/{pipeline}"), None));
        state.into_iter().chain(away).chain(between).collect()
    }

    /// Where the bytes of a plugin are, if all its chunks are there.
    pub fn component(&self, digest: &str) -> Option<StoredComponent> {
        let record = self.plugins.get(digest)?;
        let chunk = |index| self.chunks.get(&(digest.to_owned(), index)).copied();
        let chunks = (0..record.chunks).map(chunk).collect::<Option<Vec<i64>>>()?;
        Some(StoredComponent { digest: digest.to_owned(), bytes: record.bytes, chunks })
    }

    /// The newest plugin pushed under a name, for manifests that name one without a digest.
    pub fn newest(&self, name: &str) -> Option<&str> {
        let is_named = |record: &PluginRecord| record.name.as_deref() == Some(name) && !record.trial;
        let named = self.plugins.iter().filter(|(_, record)| is_named(record));
        named.max_by_key(|(_, record)| record.pushed_at_ms).map(|(digest, _)| digest.as_str())
    }

    /// What makes a component known, and what its name means, unless it is for a trial alone. Of one that is known already, its
    /// record alone, if its name means another or its signature is new: else nothing.
    pub fn push(&self, digest: &Digest, record: &PluginRecord, component: &Bytes) -> Vec<DeploymentRecord> {
        let digest = digest.hex();
        let newest = record.name.as_deref().and_then(|name| self.newest(name));
        let before = newest.and_then(|newest| self.plugins.get(newest)).map(|newest| newest.pushed_at_ms);
        // Pushes are told apart by their times, whatever the clock says.
        let after = before.map_or(i64::MIN, |before| before.saturating_add(1));
        let pushed_at_ms = record.pushed_at_ms.max(after);
        let Some(known) = self.plugins.get(&digest).filter(|_| self.component(&digest).is_some()) else {
            return component_records(&digest, &PluginRecord { pushed_at_ms, ..record.clone() }, component);
        };
        let is_meant = record.trial || record.name.is_none() || newest == Some(digest.as_str());
        let trial = known.trial && record.trial;
        let signature = record.signature.as_ref().or(known.signature.as_ref()).cloned();
        if is_meant && signature == known.signature && trial == known.trial {
            return Vec::new();
        }
        let pushed_at_ms = if is_meant { known.pushed_at_ms } else { pushed_at_ms };
        vec![(
            format!("plugin/{digest}"),
            Some(json(&PluginRecord { pushed_at_ms, signature, trial, ..known.clone() })),
        )]
    }

    /// Components that nobody can deploy or roll back to by what is kept, but for those that a change under way wants.
    pub fn unused(&self, wanted: impl Fn(&Digest) -> bool) -> Vec<Digest> {
        let revisions = self.pipelines.values().flat_map(|history| history.revisions.values());
        let named: BTreeSet<&str> =
            revisions.flat_map(|revision| revision.plugins.values()).map(|digest| hex_of(digest)).collect();
        let is_newest = |hex: &str, record: &PluginRecord| {
            record.name.as_deref().and_then(|name| self.newest(name)) == Some(hex)
        };
        let mut unused = Vec::new();
        for (hex, record) in &self.plugins {
            if record.deployed && !named.contains(hex.as_str()) && !is_newest(hex, record) {
                unused.extend(format!("sha256:{hex}").parse().ok().filter(|digest| !wanted(digest)));
            }
        }
        for (trial, most) in [(true, TRIALS_MAX), (false, UNDEPLOYED_MAX)] {
            let never = self.plugins.iter().filter(|(hex, record)| {
                record.trial == trial && !record.deployed && !named.contains(hex.as_str())
            });
            let mut never: Vec<(i64, &String)> =
                never.map(|(hex, record)| (record.pushed_at_ms, hex)).collect();
            never.sort_unstable();
            let oldest = never.iter().take(never.len().saturating_sub(most));
            let digests = oldest.filter_map(|(_, hex)| format!("sha256:{hex}").parse().ok());
            unused.extend(digests.filter(|digest| !wanted(digest)));
        }
        unused
    }

    /// What deletes a component. Its record goes first: a crash in between leaves chunks that nobody asks for.
    pub fn remove(&self, digest: &Digest) -> Vec<DeploymentRecord> {
        let hex = digest.hex();
        let chunks = self.chunks.range((hex.clone(), 0)..=(hex.clone(), u32::MAX));
        let chunks = chunks.map(|((hex, index), _)| (format!("plugin/{hex}/{index}"), None));
        std::iter::once((format!("plugin/{hex}"), None)).chain(chunks).collect()
    }

    /// About how many bytes a log has that says this and nothing else.
    pub fn bytes(&self) -> u64 {
        let revisions = self.pipelines.values().flat_map(|history| history.revisions.values());
        let revisions = revisions.map(|revision| RECORD_BYTES + revision.manifest.len() as u64);
        let plugins = self.plugins.values().map(|record| RECORD_BYTES + record.bytes);
        let tables = self.tables.len() as u64 * RECORD_BYTES;
        let stores = self.stores.values().map(|stores| RECORD_BYTES * (1 + stores.len() as u64));
        let away = self.away.values().map(|stores| RECORD_BYTES * (1 + stores.len() as u64));
        revisions.chain(plugins).chain(stores).chain(away).sum::<u64>() + tables
    }

    /// What a snapshot has to write: components by where they are, and all other records. `None`: there are records
    /// that only a newer version could write anew.
    pub fn snapshot(&self) -> Option<(Vec<StoredComponent>, Vec<DeploymentRecord>)> {
        if self.has_unknown {
            return None;
        }
        let components = self.plugins.keys().filter_map(|hex| self.component(hex)).collect();
        let mut records = Vec::new();
        for (name, history) in &self.pipelines {
            let revision = |(number, revision)| (format!("pipeline/{name}/{number}"), Some(json(revision)));
            records.extend(history.revisions.iter().map(revision));
            records.extend(history.live.map(|live| (format!("pipeline/{name}"), Some(json(&live)))));
        }
        records.extend(self.tables.iter().map(|(name, table)| table_record(name, Some(table))));
        records
            .extend(self.stores.iter().map(|(name, stores)| (format!("state/{name}"), Some(json(stores)))));
        records.extend(self.away.iter().map(|(name, away)| (format!("away/{name}"), Some(json(away)))));
        let limits = self.limits.iter();
        records.extend(limits.map(|(name, limits)| (format!("limits/{name}"), Some(json(limits)))));
        let between = self.between.iter();
        records.extend(between.map(|(name, topics)| (format!("between/{name}"), Some(json(topics)))));
        Some((components, records))
    }

    /// What makes a component known that is known already.
    pub fn rewrite(&self, stored: &StoredComponent, component: &Bytes) -> Vec<DeploymentRecord> {
        let record = self.plugins.get(&stored.digest);
        record.map_or_else(Vec::new, |record| component_records(&stored.digest, record, component))
    }

    /// What takes a revision live, even if the one before it was paused, and drops the oldest ones.
    pub fn deploy(&self, name: &str, revision: &Revision) -> (u64, Vec<DeploymentRecord>) {
        let history = self.pipelines.get(name);
        let newest = history.and_then(|history| history.revisions.keys().next_back().copied());
        let number = newest.unwrap_or(0).saturating_add(1);
        let live = Live { revision: number, paused: false };
        let mut records = vec![
            (format!("pipeline/{name}/{number}"), Some(json(revision))),
            (format!("pipeline/{name}"), Some(json(&live))),
        ];
        let kept = history.map_or(0, |history| history.revisions.len());
        let superfluous = (kept + 1).saturating_sub(KEPT_REVISIONS);
        let oldest = history.into_iter().flat_map(|history| history.revisions.keys()).take(superfluous);
        records.extend(oldest.map(|number| (format!("pipeline/{name}/{number}"), None)));
        (number, records)
    }

    /// What pauses or resumes a pipeline.
    pub fn set_paused(&self, name: &str, paused: bool) -> Option<Vec<DeploymentRecord>> {
        let live = self.pipelines.get(name)?.live?;
        Some(vec![(format!("pipeline/{name}"), Some(json(&Live { paused, ..live })))])
    }

    /// What an operator says of a pipeline.
    pub fn limits(&self, name: &str) -> PipelineLimits {
        self.limits.get(name).copied().unwrap_or_default()
    }

    /// What says that from now on; nothing is known of a pipeline without limits.
    pub fn set_limits(&self, name: &str, limits: &PipelineLimits) -> Option<DeploymentRecord> {
        let value = (*limits != PipelineLimits::default()).then(|| json(limits));
        (*limits != self.limits(name)).then(|| (format!("limits/{name}"), value))
    }

    /// What makes a pipeline go away. The live mark goes first: a crash in between leaves nothing that runs.
    pub fn delete(&self, name: &str) -> Option<Vec<DeploymentRecord>> {
        let history = self.pipelines.get(name)?;
        let mut records = vec![(format!("pipeline/{name}"), None)];
        records.extend(history.revisions.keys().map(|number| (format!("pipeline/{name}/{number}"), None)));
        records.extend(self.set_limits(name, &PipelineLimits::default()));
        Some(records)
    }
}

impl StoredComponent {
    /// Puts the component together. `read` is given a range of offsets and calls back with each record in it.
    ///
    /// # Errors
    /// What `read` says, or that a chunk is missing.
    pub fn assemble<E: From<BadRecord>>(
        &self,
        read: impl FnOnce(Range<i64>, &mut EachChunk<'_>) -> Result<(), E>,
    ) -> Result<Vec<u8>, E> {
        let from = self.chunks.iter().min().copied().unwrap_or(0);
        let to = self.chunks.iter().max().map_or(0, |last| last + 1);
        let mut found: Vec<Option<Bytes>> = vec![None; self.chunks.len()];
        let index: BTreeMap<i64, usize> = self.chunks.iter().copied().zip(0..).collect();
        read(from..to, &mut |offset, value| {
            if let Some(slot) = index.get(&offset).and_then(|index| found.get_mut(*index)) {
                *slot = Some(Bytes::copy_from_slice(value));
            }
        })?;
        let whole = found.into_iter().collect::<Option<Vec<Bytes>>>().map(|chunks| chunks.concat());
        whole.filter(|bytes| bytes.len() as u64 == self.bytes).ok_or_else(|| {
            let key = format!("plugin/{}", self.digest);
            BadRecord {
                key,
                reason: format!("its {} chunks do not make {} bytes", self.chunks.len(), self.bytes),
            }
            .into()
        })
    }
}

/// Is handed a record's offset and value.
pub type EachChunk<'a> = dyn FnMut(i64, &[u8]) + 'a;

/// Its chunks, then its record.
fn component_records(digest: &str, record: &PluginRecord, component: &Bytes) -> Vec<DeploymentRecord> {
    let chunk = |index: u32| {
        let from = index as usize * CHUNK_BYTES;
        let chunk = component.slice(from..component.len().min(from + CHUNK_BYTES));
        (format!("plugin/{digest}/{index}"), Some(chunk))
    };
    let record = (format!("plugin/{digest}"), Some(json(record)));
    (0..chunks(component.len())).map(chunk).chain([record]).collect()
}

fn hex_of(digest: &str) -> &str {
    digest.strip_prefix("sha256:").unwrap_or(digest)
}

/// How many chunks a component has.
pub fn chunks(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(CHUNK_BYTES)).unwrap_or(u32::MAX)
}

/// What defines a table, or with `None` makes it go away.
pub fn table_record(name: &str, definition: Option<&TableDefinition>) -> DeploymentRecord {
    (format!("table/{name}"), definition.map(json))
}

fn json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("plain structs with string keys always serialise").into()
}

#[cfg(test)]
mod tests;
