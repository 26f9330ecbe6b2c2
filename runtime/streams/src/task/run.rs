//! One pass of a range of records through the tree.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::kept::Kept;
use super::output::{Calls, Cow, Piece};
use super::{Plugins, RecordError, Topology};
use crate::answer::Answer;
use crate::batch::{BatchFull, BatchIn, OwnedBatch};
use crate::operator::OperatorError;
use crate::plugin::{PluginError, Rejection};
use crate::sink::{Emissions, Refused};
use crate::state::StateError;
use crate::topology::Target;

/// Where a record is left out once it cannot be processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// A node, by index, is not given it.
    Node(usize),
    /// A built-in operator, by index, is not given it.
    Operator(usize),
    /// An output, by index, that reads the source is not given it.
    Output(usize),
}

/// Records that are left out, and where; `None`: they go nowhere at all.
pub(super) type Excluded = BTreeSet<(Option<Place>, i64)>;

/// Why a range of records cannot be passed. Nothing of it was emitted.
pub(super) struct RangeError {
    pub(super) place: Place,
    pub(super) error: RecordError,
    pub(super) meant: Meant,
}

/// Which records a [`RangeError`] is about, by offset (-1: made from none).
pub(super) enum Meant {
    /// Those that are to blame; empty when that is not known.
    Blamed(Vec<(i64, RecordError)>),
    /// Nothing has failed: more closes before this one than goes out at once, so it is to be given alone.
    Alone(i64),
}

impl RangeError {
    pub(super) fn new(place: Place, error: RecordError) -> RangeError {
        RangeError { place, error, meant: Meant::Blamed(Vec::new()) }
    }

    /// See [`Meant::Alone`].
    pub(super) fn alone(place: Place, offset: i64) -> RangeError {
        let error = OperatorError::Alone { index: 0 }.to_string();
        RangeError { meant: Meant::Alone(offset), ..RangeError::new(place, RecordError::Row(error)) }
    }

    fn unnamed(node: usize, error: PluginError) -> RangeError {
        RangeError::new(Place::Node(node), error.into())
    }

    /// A call of a plugin has failed.
    pub(super) fn is_of_plugin(&self) -> bool {
        matches!(self.error, RecordError::Plugin(_))
    }

    pub(super) fn of_state(node: usize, error: StateError) -> RangeError {
        RangeError::new(Place::Node(node), error.into())
    }

    fn ill_formed(node: usize, what: String) -> RangeError {
        RangeError::unnamed(node, PluginError::IllFormed { what })
    }

    pub(super) fn too_large(node: usize, full: BatchFull) -> RangeError {
        RangeError::ill_formed(node, full.to_string())
    }

    /// Turns indexes of a rejection into offsets; an index that is not in the batch makes the answer ill-formed.
    fn of_plugin(node: usize, input: &BatchIn<'_>, error: PluginError) -> RangeError {
        let PluginError::Reject(rejections) = error else { return RangeError::unnamed(node, error) };
        let offset = |r: &Rejection| {
            let offset = input.offsets.get(r.index as usize).copied()?;
            Some((offset, PluginError::Reject(vec![r.clone()]).into()))
        };
        match rejections.iter().map(offset).collect::<Option<Vec<_>>>() {
            Some(blamed) if !blamed.is_empty() => {
                let error = PluginError::Reject(rejections).into();
                RangeError { meant: Meant::Blamed(blamed), ..RangeError::new(Place::Node(node), error) }
            }
            _ => {
                let (named, records) = (rejections.len(), input.len());
                let what =
                    format!("it rejects {named} records by index, not all of them in the batch of {records}");
                RangeError::ill_formed(node, what)
            }
        }
    }

    /// What topics refuse is the failure of the node that made it, or of the sink that reads the source. Those of other
    /// places are found when the range is run again.
    pub(super) fn of_outputs(
        emissions: Emissions<'_>,
        refused: Vec<Refused>,
        topology: &Topology,
    ) -> Option<RangeError> {
        let mut refused = refused.into_iter();
        let mut next = refused.next();
        let mut found: Option<(Place, RecordError)> = None;
        let (mut blamed, mut index): (Vec<(i64, RecordError)>, _) = (Vec::new(), 0);
        for (piece, partitions) in emissions.pieces.iter().zip(emissions.partitions) {
            for (record, &partition) in piece.records().zip(partitions) {
                if let Some(Refused { why, .. }) = next.take_if(|refused| refused.index == index) {
                    next = refused.next();
                    let topic = topology.outputs[piece.topic].topic.clone();
                    let error = RecordError::Refused { topic, partition, why };
                    let place = piece.place();
                    let (first, _) = found.get_or_insert_with(|| (place, error.clone()));
                    let is_new = blamed.last().is_none_or(|(offset, _)| *offset != record.offset);
                    if *first == place && is_new {
                        blamed.push((record.offset, error));
                    }
                }
                index += 1;
            }
        }
        found.map(|(place, error)| RangeError { place, error, meant: Meant::Blamed(blamed) })
    }
}

/// One pass through the tree.
pub(super) struct Run<'t> {
    pub(super) plugins: &'t mut Plugins,
    pub(super) topology: &'t Topology,
    pub(super) excluded: &'t Excluded,
    pub(super) calls: &'t mut Calls,
}

impl Run<'_> {
    /// Gives the records of the source to its readers.
    pub(super) fn source<'a>(
        &mut self,
        batch: Cow<'a>,
        targets: &[Target],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        let batch = self.without_excluded(None, batch);
        for target in targets {
            match *target {
                Target::Node(node) => self.node(node, batch.clone(), pieces)?,
                Target::Output(topic) => pieces.push(self.source_piece(&batch, topic)),
                Target::Operator(..) => unreachable!("a source that reaches an operator is of a graph"),
            }
        }
        Ok(())
    }

    /// Records of the source for an output that reads it.
    pub(super) fn source_piece<'a>(&self, batch: &Cow<'a>, topic: usize) -> Piece<'a> {
        let batch = self.without_excluded(Some(Place::Output(topic)), batch.clone());
        let answer = Arc::new(Answer::identity(&batch.as_batch()));
        Piece { batch, answer, output: 0, topic, made_by: None }
    }

    /// Gives what `answer` emits on `output` to its readers, depth first.
    fn hand_on<'a>(
        &mut self,
        (made_by, output): (usize, u32),
        batch: &Cow<'a>,
        answer: &Arc<Answer>,
        targets: &[Target],
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        for target in targets {
            match *target {
                Target::Output(topic) => {
                    let (batch, answer) = (batch.clone(), Arc::clone(answer));
                    pieces.push(Piece { batch, answer, output, topic, made_by: Some(Place::Node(made_by)) });
                }
                Target::Node(node) => {
                    let next = answer.to_batch(batch.as_batch(), |i| goes_to(answer, i, output));
                    let next = next.map_err(|full| RangeError::too_large(node, full))?;
                    self.node(node, Cow::Shared(Arc::new(next)), pieces)?;
                }
                Target::Operator(..) => unreachable!("a node that an operator reads is of a graph"),
            }
        }
        Ok(())
    }

    fn node<'a>(
        &mut self,
        node: usize,
        batch: Cow<'a>,
        pieces: &mut Vec<Piece<'a>>,
    ) -> Result<(), RangeError> {
        let Some((batch, answer)) = self.call(node, batch, None)? else { return Ok(()) };
        for (output, targets) in (0..).zip(&self.topology.nodes[node].outputs) {
            self.hand_on((node, output), &batch, &answer, targets, pieces)?;
        }
        Ok(())
    }

    /// Gives a batch to a plugin, and what the task keeps if the plugin keeps something. What it was given, and its answer;
    /// none if it was given nothing.
    pub(super) fn call<'a>(
        &mut self,
        node: usize,
        batch: Cow<'a>,
        kept: Option<&mut Kept>,
    ) -> Result<Option<(Cow<'a>, Arc<Answer>)>, RangeError> {
        let batch = self.without_excluded(Some(Place::Node(node)), batch);
        let input = batch.as_batch();
        if input.is_empty() {
            return Ok(None);
        }
        let spec = &self.topology.nodes[node];
        let outputs = u32::try_from(spec.outputs.len()).unwrap_or(u32::MAX);
        let plugin = self.plugins.get(node);
        self.calls.made += 1;
        let answer = match kept.filter(|kept| kept.has_stores(node)) {
            None => plugin.process(&input),
            Some(kept) => {
                let call = |state| plugin.process_with(&input, state);
                let called = kept.lend(node, spec.limits.state_bytes, call);
                called.map_err(|error| RangeError::of_state(node, error))?
            }
        };
        let answer = answer
            .and_then(|out| Ok(Answer::check(&input, out, spec.limits.output_bytes, outputs)?))
            .map_err(|error| RangeError::of_plugin(node, &input, error))
            .inspect_err(|_| self.calls.failed += 1)?;
        Ok(Some((batch, Arc::new(answer))))
    }

    pub(super) fn without_excluded<'a>(&self, place: Option<Place>, batch: Cow<'a>) -> Cow<'a> {
        let input = batch.as_batch();
        let out = |i: usize| self.excluded.contains(&(place, input.offsets[i]));
        if self.excluded.is_empty() || !(0..input.len()).any(out) {
            return batch;
        }
        select(input, |i| !out(i))
    }
}

/// A part of a batch.
pub(super) fn select<'a>(batch: BatchIn<'_>, keep: impl FnMut(usize) -> bool) -> Cow<'a> {
    let part = OwnedBatch::select(batch, keep);
    Cow::Shared(Arc::new(part.expect("a part of a batch fits where the whole does")))
}

/// Whether record `i` of an answer goes to `output`.
pub(crate) fn goes_to(answer: &Answer, i: usize, output: u32) -> bool {
    match answer.route() {
        None => output == 0,
        Some(route) => route.get(i) == Some(&output),
    }
}
