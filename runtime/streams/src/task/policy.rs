//! What becomes of a range of records that cannot be passed: the node's `on_error` decides.

use std::sync::Arc;

use super::failure::NO_RECORD;
use super::output::{Notice, NoticeKind};
use super::timers::FAILING;
use super::{Decided, Meant, Place, Range, RangeError, RecordError, Step, StepError, Task, TaskFailure};
use crate::manifest::{DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS, MAX_RETRY_BACKOFF_MS, OnError};
use crate::topology::Topology;

/// Rejections of one range after which it is halved: a plugin that names one record a call would otherwise see the
/// whole batch again for each of them.
const MAX_REJECTIONS_PER_RANGE: u32 = 4;

/// Attempts at a step, by the source and offset that it begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retrying {
    source: usize,
    offset: i64,
    attempts: u32,
}

impl Retrying {
    pub(super) fn source(&self) -> usize {
        self.source
    }
}

/// What to do about a failed range.
pub(super) enum Next {
    Again,
    /// Run the records before this index, then the others.
    Split(usize),
    Stop(StepError),
}

/// What the manifest says of a place, and how the place is called.
pub(super) struct Policy<'a> {
    pub(super) name: String,
    pub(super) on_error: &'a OnError,
    dead_letter: Option<usize>,
}

impl Policy<'_> {
    pub(super) fn of(topology: &Topology, place: Place) -> Policy<'_> {
        match place {
            Place::Node(node) => {
                let node = &topology.nodes[node];
                Policy { name: node.id.clone(), on_error: &node.on_error, dead_letter: node.dead_letter }
            }
            Place::Operator(operator) => {
                let node = &topology.operators[operator];
                Policy { name: node.id.clone(), on_error: &node.on_error, dead_letter: node.dead_letter }
            }
            Place::Output(output) => {
                let output = &topology.outputs[output];
                let name = format!("sink {}", output.topic);
                Policy { name, on_error: &output.on_error, dead_letter: output.letters }
            }
        }
    }
}

impl Task {
    pub(super) fn decide(&mut self, step: &mut Step<'_>, range: Range, error: RangeError) -> Next {
        let RangeError { place, error, meant } = error;
        let blamed = match meant {
            Meant::Blamed(blamed) => blamed,
            Meant::Alone(_) => Vec::new(),
        };
        let topology = Arc::clone(&self.topology);
        let policy = Policy::of(&topology, place);
        let (topic, partition) = (step.batch.topic, step.partition());
        let failure = |first: i64, last: i64, error: RecordError| TaskFailure {
            node: policy.name.clone(),
            topic: topic.to_owned(),
            partition,
            offset: first,
            last_offset: last,
            error,
        };
        let Range { start, end, rejections } = range;
        let (first, last) = (step.batch.offsets[start], step.batch.offsets[end - 1]);
        // The first record to blame, else all that there are.
        let named = blamed.iter().map(|(offset, _)| *offset).filter(|offset| *offset != -1).min();
        let (from, to) = named.map_or((first, last), |offset| (offset, offset));
        let whole = || Box::new(failure(from, to, error.clone()));
        if error.is_final() {
            return Next::Stop(StepError::Failed(whole()));
        }
        let asked = error.asks_again();
        match self.retry((step.source, step.batch.offsets[0]), policy.on_error, asked, whole) {
            Some(retry) => return Next::Stop(retry),
            None if asked => return Next::Stop(StepError::Failed(whole())),
            None => {}
        }
        let is_late = error.is_late();
        // What was made of no record cannot be left out by its offset: it is what the range is to blame for.
        let known = !blamed.is_empty() && blamed.iter().all(|(offset, _)| *offset != -1);
        let blamed = match blamed {
            blamed if known => blamed,
            _ if end - start > 1 => return Next::Split(start + (end - start) / 2),
            // A machine that is busy makes a call late: one record is only blamed when it is late twice.
            _ if is_late && rejections == 0 => return Next::Again,
            _ if self.leaves_timers_out(step, &place, &error, first) => return Next::Again,
            blamed => vec![(first, blamed.into_iter().next().map_or(error.clone(), |(_, error)| error))],
        };
        let kind = match policy.on_error.last_resort() {
            OnError::Skip => NoticeKind::Skipped,
            OnError::DeadLetter { .. } => NoticeKind::DeadLettered,
            OnError::Fail | OnError::Retry { .. } => {
                let Some((bad, error)) = blamed.into_iter().min_by_key(|(offset, _)| *offset) else {
                    return Next::Stop(StepError::Failed(whole()));
                };
                // The records before the bad one go first, so that the commit ends exactly there.
                let at = step.batch.offsets.partition_point(|offset| *offset < bad);
                if at > start {
                    return Next::Split(at);
                }
                return Next::Stop(StepError::Failed(Box::new(failure(bad, bad, error))));
            }
        };
        for (offset, error) in blamed {
            if step.excluded.insert((Some(place), offset)) {
                let notice = Notice { kind: kind.clone(), failure: failure(offset, offset, error) };
                let dead_letter = policy.dead_letter.filter(|_| kind == NoticeKind::DeadLettered);
                step.decided.push(Decided { notice, dead_letter });
            } else if !step.excluded.insert((None, offset)) {
                return Next::Stop(StepError::Failed(whole()));
            }
        }
        if rejections + 1 >= MAX_REJECTIONS_PER_RANGE && end - start > 1 {
            return Next::Split(start + (end - start) / 2);
        }
        Next::Again
    }

    /// Of a single record whose pass fails: whether that is for what timers have emitted before it, or for a timer that fails, and the
    /// policy has it left out now.
    fn leaves_timers_out(
        &mut self,
        step: &mut Step<'_>,
        place: &Place,
        error: &RecordError,
        offset: i64,
    ) -> bool {
        let topology = Arc::clone(&self.topology);
        let policy = Policy::of(&topology, *place);
        let skips = matches!(policy.on_error.last_resort(), OnError::Skip | OnError::DeadLetter { .. });
        let any = self.state.kept().is_some_and(|kept| kept.fired.any);
        let is_of_timer = matches!(error, RecordError::Timer { .. });
        let marker = if is_of_timer { FAILING } else { NO_RECORD };
        if !skips || !any || !step.excluded.insert((Some(*place), marker)) {
            return false;
        }
        // A timer that fails says so by itself.
        if !is_of_timer {
            step.left_out(&policy.name, offset, error.clone());
        }
        true
    }

    /// The next attempt, if the policy has one left for the step that begins at an offset of a source.
    pub(super) fn retry(
        &mut self,
        (source, offset): (usize, i64),
        policy: &OnError,
        asked: bool,
        failure: impl FnOnce() -> Box<TaskFailure>,
    ) -> Option<StepError> {
        let (attempts, backoff_ms) = match policy {
            OnError::Retry { attempts, backoff_ms, .. } => (*attempts, *backoff_ms),
            _ if asked => (DEFAULT_RETRY_ATTEMPTS, DEFAULT_RETRY_BACKOFF_MS),
            _ => return None,
        };
        let made =
            self.retrying.filter(|r| (r.source, r.offset) == (source, offset)).map_or(0, |r| r.attempts);
        if made >= attempts {
            return None;
        }
        self.retrying = Some(Retrying { source, offset, attempts: made + 1 });
        let delay_ms = backoff_ms.saturating_mul(1 << made.min(20)).min(MAX_RETRY_BACKOFF_MS);
        Some(StepError::Retry { delay_ms, attempt: made + 1, attempts, failure: failure() })
    }
}
