//! A plugin that does what its records tell it to, for tests.

use std::sync::Arc;

use pelton_streams::answer::NO_SOURCE;
use pelton_streams::node_state::{ColumnOut, NodeState, Refused};
use pelton_streams::operator::TimerDomain;
use pelton_streams::operator::aggregate::Way;
use pelton_streams::plugin::AggregatorPlugin;
use pelton_streams::{
    BatchIn, BatchOut, Digest, InstanceSpec, InstantiateError, LoadError, Plugin, PluginError, PluginFactory,
    PluginInfo, SlicesOut, World,
};

use crate::io::StopSignal;

/// Passes everything on, but for values that say what should go wrong.
struct Obedient(Arc<StopSignal>);

impl Plugin for Obedient {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        let mut source = Vec::new();
        for (i, record) in batch.records().enumerate() {
            match record.value {
                Some(b"trap") => {
                    return Err(PluginError::Trapped { trap: "unreachable".to_owned(), said: None });
                }
                Some(b"drop") => {}
                Some(b"late and stopped") => {
                    self.0.set();
                    return Err(PluginError::Deadline { deadline_ms: 1 });
                }
                _ => source.push(i as u32),
            }
        }
        Ok(BatchOut { source, ..BatchOut::default() })
    }

    fn process_with(
        &mut self,
        batch: &BatchIn<'_>,
        mut state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        // A node without timers refuses the first one.
        let answer = wait(batch, &mut state).or_else(|_| keep(batch, &mut state));
        (answer.map_err(|Refused(trap)| PluginError::Trapped { trap, said: None }), state)
    }

    fn fire(
        &mut self,
        _: TimerDomain,
        (names, at): (&ColumnOut, &[i64]),
        state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        let (mut keys, mut values) = (SlicesOut::default(), SlicesOut::default());
        let mut data = Vec::new();
        for i in 0..names.len() {
            for (slices, field) in [(&mut keys, names.get(i).unwrap_or_default()), (&mut values, &b"due"[..])]
            {
                slices.offsets.push(data.len() as u32);
                slices.lengths.push(field.len() as u32);
                data.extend_from_slice(field);
            }
        }
        let source = vec![NO_SOURCE; names.len()];
        let (keys, values, timestamps) = (Some(keys), Some(values), Some(at.to_vec()));
        (Ok(BatchOut { source, data, keys, values, timestamps, ..BatchOut::default() }), state)
    }
}

/// Hands records on, and has a timer fire for each key of which there is none for 7 ms.
fn wait(batch: &BatchIn<'_>, state: &mut NodeState) -> Result<BatchOut, Refused> {
    for record in batch.records() {
        let mut name = ColumnOut::default();
        name.push(Some(record.key.unwrap_or_default()));
        state.set_timers(TimerDomain::StreamTime, name.as_in(), &[record.timestamp + 7])?;
    }
    Ok(BatchOut::identity(batch.len()))
}

/// Counts the records of each key in the store `seen`, keeps their times in the windows of `recent`, and emits how many there are in
/// both.
fn keep(batch: &BatchIn<'_>, state: &mut NodeState) -> Result<BatchOut, Refused> {
    let (mut out, mut values) = (BatchOut::default(), SlicesOut::default());
    for (i, record) in (0..).zip(batch.records()) {
        let Some(key) = record.key else { continue };
        let column = |field: &[u8]| {
            let mut column = ColumnOut::default();
            column.push(Some(field));
            column
        };
        let keys = column(key);
        let before = state.get("seen", keys.as_in())?;
        let before = before.get(0).and_then(|bytes| Some(u32::from_be_bytes(*bytes.first_chunk()?)));
        let n = before.unwrap_or(0) + 1;
        state.put("seen", keys.as_in(), column(&n.to_be_bytes()).as_in())?;
        state.put_windows("recent", keys.as_in(), &[record.timestamp], column(b"").as_in())?;
        let recent = state.windows_of("recent", key, (0, i64::MAX), false, u32::MAX)?;
        let value = format!("{n} {}", recent.starts.len());
        out.source.push(i);
        values.offsets.push((batch.data.len() + out.data.len()) as u32);
        values.lengths.push(value.len() as u32);
        out.data.extend_from_slice(value.as_bytes());
    }
    out.values = Some(values);
    Ok(out)
}

/// Makes [`Obedient`]s.
pub(super) struct Factory(pub(super) Arc<StopSignal>);

impl PluginFactory for Factory {
    fn load(&self, _digest: &Digest, _component: &[u8]) -> Result<PluginInfo, LoadError> {
        unreachable!("the tests link their topologies themselves")
    }

    fn instantiate(
        &self,
        _digest: &Digest,
        _spec: &InstanceSpec,
    ) -> Result<Box<dyn Plugin>, InstantiateError> {
        Ok(Box::new(Obedient(Arc::clone(&self.0))))
    }

    fn instantiate_aggregator(
        &self,
        _digest: &Digest,
        _spec: &InstanceSpec,
    ) -> Result<Box<dyn AggregatorPlugin>, InstantiateError> {
        Ok(Box::new(Last))
    }

    fn unload(&self, _digest: &Digest) {}
}

/// The value of a group is how many records it has had, and the last one of them.
struct Last;

impl AggregatorPlugin for Last {
    fn create(&mut self) -> Result<Vec<u8>, PluginError> {
        Ok(b"0 ".to_vec())
    }

    fn fold(
        &mut self,
        _: Way,
        values: &ColumnOut,
        batch: &BatchIn<'_>,
        groups: &[u32],
    ) -> Result<ColumnOut, PluginError> {
        let mut now: Vec<Vec<u8>> = (0..values.len()).filter_map(|i| Some(values.get(i)?.to_vec())).collect();
        let mut out = ColumnOut::default();
        for (record, group) in batch.records().zip(groups) {
            let value = &mut now[*group as usize];
            let count =
                value.split(|byte| *byte == b' ').next().and_then(|text| std::str::from_utf8(text).ok());
            let count = count.and_then(|text| text.parse::<u32>().ok()).unwrap_or(0) + 1;
            *value = [format!("{count} ").as_bytes(), record.value.unwrap_or_default()].concat();
            out.push(Some(value));
        }
        Ok(out)
    }

    fn merge(&mut self, _: &ColumnOut, _: &ColumnOut) -> Result<ColumnOut, PluginError> {
        Err(PluginError::Fatal("there are no sessions".to_owned()))
    }
}

/// Of this world.
pub(super) fn obedient(world: World) -> PluginInfo {
    PluginInfo { digest: Digest::new([1; 32]), world, manifest: None, bytes: 1 }
}
