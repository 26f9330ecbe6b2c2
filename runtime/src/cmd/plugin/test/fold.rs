//! Cases of aggregators: records are put into the values of groups and taken out, and values become one. The plugin is called as an
//! aggregate of a pipeline calls it, with many groups and records at once.

use std::collections::BTreeMap;
use std::sync::Arc;

use pelton_streams::batch::{Headers, RecordIn};
use pelton_streams::node_state::ColumnOut;
use pelton_streams::operator::aggregate::Way;
use pelton_streams::plugin::AggregatorPlugin;
use pelton_streams::plugin_manifest::configure_untyped;
use pelton_streams::{InstantiateError, OwnedBatch, PluginError};

use super::fixture::{Case, Failed, Grouped, Merge, Step, items, value_row};
use super::row::Content;
use super::run::{Came, CaseCame, Component, Lines, RunError, own_limits, reason};

/// Aggregators are told of no offset.
const NO_OFFSET: i64 = -1;

/// The values of groups, and the plugin that makes them.
struct Groups {
    plugin: Box<dyn AggregatorPlugin>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
}

pub(super) fn run(of: &Component<'_>, case: &Case, lines: &Arc<Lines>) -> Result<CaseCame, RunError> {
    let given = case.config.clone().into_iter().collect();
    let config = match &of.info.manifest {
        Some(manifest) => manifest.configure(&given),
        None => configure_untyped(&given),
    };
    let config = config.map_err(|error| RunError::Start(InstantiateError::Config(error)))?;
    let spec = of.spec(config, own_limits(&of.info), lines);
    let plugin = of.engine.instantiate_aggregator(&of.info.digest, &spec).map_err(RunError::Start)?;
    let mut groups = Groups { plugin, values: BTreeMap::new() };
    let mut all = Vec::with_capacity(case.steps.len());
    for step in &case.steps {
        let mut came = groups.step(step)?;
        came.log = lines.take();
        let stopped = came.stopped;
        all.push(came);
        if stopped {
            break;
        }
    }
    Ok(CaseCame::Steps(all))
}

impl Groups {
    fn step(&mut self, step: &Step) -> Result<Came, RunError> {
        let mut came = Came::default();
        self.fold(Way::In, items(&step.add), &mut came)?;
        self.fold(Way::Out, items(&step.subtract), &mut came)?;
        self.merge(items(&step.merge), &mut came);
        Ok(came)
    }

    /// Folds all records with one call, and again without those that are rejected.
    fn fold(&mut self, way: Way, records: &[Grouped], came: &mut Came) -> Result<(), RunError> {
        let mut left: Vec<usize> = (0..records.len()).collect();
        while !left.is_empty() {
            match self.fold_once(way, records, &left)? {
                Ok(values) => {
                    for (&record, value) in left.iter().zip(values) {
                        self.values.insert(records[record].group.bytes().to_vec(), value.clone());
                        came.values.push(value_row(Content::Bytes(value)));
                    }
                    break;
                }
                Err(PluginError::Reject(rejected)) if !rejected.is_empty() => {
                    let named = |i: usize| rejected.iter().find(|one| one.index as usize == i);
                    let mut kept = Vec::with_capacity(left.len());
                    for (i, &record) in left.iter().enumerate() {
                        match named(i) {
                            Some(one) => {
                                came.fails(&failed(Some(record), &PluginError::Reject(vec![one.clone()])))
                            }
                            None => kept.push(record),
                        }
                    }
                    if kept.len() == left.len() {
                        let what = "it rejects records that it was not given".to_owned();
                        came.fails(&failed(None, &PluginError::IllFormed { what }));
                        break;
                    }
                    left = kept;
                }
                Err(error) => {
                    came.fails(&failed(None, &error));
                    break;
                }
            }
        }
        Ok(())
    }

    /// The value of the group of each record once it is in it, or out of it.
    fn fold_once(
        &mut self,
        way: Way,
        records: &[Grouped],
        left: &[usize],
    ) -> Result<Result<Vec<Vec<u8>>, PluginError>, RunError> {
        let mut batch = OwnedBatch::new("", 0);
        let (mut values, mut groups, mut places) = (ColumnOut::default(), Vec::new(), BTreeMap::new());
        for &record in left {
            let Grouped { group, value, timestamp } = &records[record];
            let parts = RecordIn {
                offset: NO_OFFSET,
                timestamp: *timestamp,
                key: Some(group.bytes()),
                value: value.as_ref().map(Content::bytes),
                headers: Headers::default(),
            };
            batch.push(parts, std::iter::empty()).map_err(|_| RunError::TooLarge)?;
            let place = match places.get(group.bytes()) {
                Some(place) => *place,
                None => {
                    let value = match self.values.get(group.bytes()) {
                        Some(value) => value.clone(),
                        None => match self.plugin.create() {
                            Ok(value) => value,
                            Err(error) => return Ok(Err(error)),
                        },
                    };
                    let place = values.len() as u32;
                    values.push(Some(&value));
                    places.insert(group.bytes(), place);
                    place
                }
            };
            groups.push(place);
        }
        let folded = self.plugin.fold(way, &values, &batch.as_batch(), &groups);
        Ok(folded.and_then(|folded| strings(&folded, left.len())))
    }

    fn merge(&mut self, merges: &[Merge], came: &mut Came) {
        for Merge { into, from } in merges {
            let value = |group: &Content| self.values.get(group.bytes()).cloned();
            let (Some(left), Some(right)) = (value(into), value(from)) else {
                let missing = if value(into).is_none() { into } else { from };
                let reason = format!("there is no group {}", String::from_utf8_lossy(missing.bytes()));
                came.fails(&Failed { reason, stops: true, ..Failed::default() });
                return;
            };
            let column = |value: &[u8]| {
                let mut column = ColumnOut::default();
                column.push(Some(value));
                column
            };
            let merged = self.plugin.merge(&column(&left), &column(&right));
            match merged.and_then(|merged| strings(&merged, 1)) {
                Ok(merged) => {
                    self.values.remove(from.bytes());
                    for value in merged {
                        self.values.insert(into.bytes().to_vec(), value.clone());
                        came.values.push(value_row(Content::Bytes(value)));
                    }
                }
                Err(error) => {
                    came.fails(&failed(None, &error));
                    return;
                }
            }
        }
    }
}

/// What a plugin answers, if it is a value for each of so many.
fn strings(answer: &ColumnOut, wanted: usize) -> Result<Vec<Vec<u8>>, PluginError> {
    let ill_formed = |what: String| PluginError::IllFormed { what };
    let all = answer.as_in().keys("values").map_err(|refused| ill_formed(refused.0))?;
    if all.len() != wanted {
        return Err(ill_formed(format!("it has {} values for {wanted}", all.len())));
    }
    Ok(all.into_iter().map(<[u8]>::to_vec).collect())
}

fn failed(record: Option<usize>, error: &PluginError) -> Failed {
    Failed {
        record: record.and_then(|record| i64::try_from(record).ok()),
        kind: Some(error.kind().to_owned()),
        reason: reason(error),
        stops: matches!(error, PluginError::Fatal(_)),
        ..Failed::default()
    }
}
