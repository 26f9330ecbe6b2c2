//! Dead letters go back to where their records were: the topic, the partition, key, value, headers and timestamp of the record,
//! without what the letter says besides.
//!
//! Who puts them back is a transactional producer of the broker's own, one for each pipeline, and a group of the same name
//! (`pelton.<pipeline>@redrive`) has the position in the dead letters. What is read in one step is written in one transaction
//! together with the position behind it: a redrive that is cut off anywhere, and one that is repeated, puts no letter back
//! twice and passes over none. A record that several nodes could not process has several letters, and goes back for each of them:
//! which letters are of one record is not to be told once its topic was deleted and created again. The position never goes back by itself: who wants a letter back again resets the group's offset.

pub(super) mod run;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use pelton_commitlog::mutant::Mutant;
use pelton_pipelines::supervisor::LetterTopics;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use self::run::Run;
use super::broker_io::REDRIVE_SUFFIX;
use crate::api::produce::Producing;
use crate::group::Groups;
use crate::topics::{Topic, Topics};
use crate::txn::Transactions;
use crate::txn::embedded::EMBEDDED_ID_PREFIX;
use crate::txn::state::TxnState;

/// Letters that one request puts back; more of them need more requests.
pub(crate) const LETTERS_MAX: u64 = 10_000;

/// Reads of stored letters, each of a mebibyte at the most, that one request makes.
pub(crate) const READS_MAX: u32 = 256;

/// Offsets by topic and partition.
pub(crate) type Ends = BTreeMap<String, BTreeMap<i32, i64>>;

/// Which letters go back. All of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RedriveRequest {
    /// The dead-letter topic; none: all that the pipeline's nodes send letters to.
    pub(crate) topic: Option<String>,
    /// Its partition; none: all of them.
    pub(crate) partition: Option<i32>,
    /// Letters before this offset are passed over. Of one partition alone.
    pub(crate) from: Option<i64>,
    /// At most so many; [`LETTERS_MAX`] is the most.
    pub(crate) limit: Option<u64>,
    /// Letters at these offsets and behind stay; none: those that come after the request.
    pub(crate) until: Option<Ends>,
    /// Rows of tables go back, too: each takes the place of whatever its key has by now.
    pub(crate) tables: bool,
    /// Say what would go back.
    pub(crate) dry_run: bool,
}

/// What has gone back, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Redriven {
    /// It has the position in the dead letters.
    pub(crate) group: String,
    /// Letters that have gone back, by the topic that they have gone to.
    pub(crate) redriven: BTreeMap<String, u64>,
    /// Letters that are passed over, since their records are rows of tables: an old one would take the place of a newer one.
    pub(crate) rows: u64,
    /// Offsets of letters that retention had deleted before they were read.
    pub(crate) deleted: u64,
    /// Records that are no letters of this pipeline.
    pub(crate) others: u64,
    pub(crate) letters: Vec<LettersRead>,
    /// Every letter that was there has gone back.
    pub(crate) complete: bool,
    /// Where it stopped, if a letter could not go back.
    pub(crate) refused: Option<RefusedLetter>,
}

/// How far a partition of dead letters was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct LettersRead {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    /// Where it began: the position of the group, or later.
    pub(crate) from: i64,
    /// The next one to go back.
    pub(crate) next: i64,
    pub(crate) end: i64,
}

/// A letter that cannot go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct RefusedLetter {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) why: String,
}

/// Why nothing, or nothing more, has gone back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RedriveError {
    #[error(
        "no node of pipeline `{0}` sends records that it cannot process to a topic (`on_error`); `topic` names one that an earlier \
         revision has sent letters to"
    )]
    NoLetters(String),
    #[error("topic `{0}` does not exist, so there are no letters in it")]
    UnknownTopic(String),
    #[error("topic `{topic}` has {partitions} partitions, and no partition {partition}")]
    UnknownPartition { topic: String, partition: i32, partitions: i32 },
    #[error(
        "`from` is an offset of one partition, and there are dead letters in {0} of them: say which by `topic` and `partition`"
    )]
    WhichPartition(usize),
    #[error(
        "the dead letters of pipeline `{0}` are being put back by another request, or it is being deleted"
    )]
    Busy(String),
    #[error(
        "putting the dead letters back panicked, which is a bug of the server; repeat it: what has gone back is not put back again"
    )]
    Panicked,
    /// Later it may work. What has gone back is not put back again.
    #[error("{0}; repeat it: what has gone back is not put back again")]
    Unavailable(String),
}

/// Puts dead letters back.
pub(crate) struct Redrive {
    parts: Arc<Producing>,
    groups: Groups,
    /// Pipelines whose letters are being put back.
    running: Mutex<BTreeSet<String>>,
    /// One of them is done.
    ended: Notify,
}

/// One partition of dead letters.
struct Place {
    topic: Arc<Topic>,
    partition: i32,
}

impl Redrive {
    pub(crate) fn new(parts: Arc<Producing>, groups: Groups) -> Arc<Redrive> {
        Arc::new(Redrive { parts, groups, running: Mutex::default(), ended: Notify::new() })
    }

    /// Puts letters of a pipeline back. It goes on to its end when whoever asked is gone: half a transaction would hold up
    /// the readers of what it has written.
    ///
    /// # Errors
    /// See [`RedriveError`].
    pub(crate) async fn run(
        self: Arc<Self>,
        pipeline: String,
        topics: LetterTopics,
        request: RedriveRequest,
    ) -> Result<Redriven, RedriveError> {
        let places = places(&self.parts.topics, &pipeline, &topics, &request)?;
        let turn = Turn::take(&self, &pipeline)?;
        let work = async move {
            let run = Run::new(&turn.redrive, &turn.pipeline, topics, &request);
            run.all(places, &request).await
        };
        match tokio::spawn(work).await {
            Ok(done) => done,
            Err(error) if error.is_panic() => Err(RedriveError::Panicked),
            Err(_) => Err(RedriveError::Unavailable("the broker is stopping".to_owned())),
        }
    }

    /// Waits until nobody puts letters of a pipeline back. Nobody does until what this gives is dropped.
    pub(crate) async fn turn(self: &Arc<Self>, pipeline: &str) -> Turn {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // Before it is looked at, so that an end in between is not missed.
            ended.as_mut().enable();
            if let Ok(turn) = Turn::take(self, pipeline) {
                return turn;
            }
            ended.await;
        }
    }
}

/// Ends the entry in [`Redrive::running`].
pub(crate) struct Turn {
    redrive: Arc<Redrive>,
    pipeline: String,
}

impl Turn {
    fn take(redrive: &Arc<Redrive>, pipeline: &str) -> Result<Turn, RedriveError> {
        if !redrive.running.lock().insert(pipeline.to_owned()) {
            return Err(RedriveError::Busy(pipeline.to_owned()));
        }
        Ok(Turn { redrive: Arc::clone(redrive), pipeline: pipeline.to_owned() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.redrive.running.lock().remove(&self.pipeline);
        self.redrive.ended.notify_waiters();
    }
}

/// The partitions of dead letters that a request means.
fn places(
    topics: &Topics,
    pipeline: &str,
    known: &LetterTopics,
    request: &RedriveRequest,
) -> Result<Vec<Place>, RedriveError> {
    let names: Vec<&String> = match &request.topic {
        Some(topic) => vec![topic],
        None => known.letters.iter().collect(),
    };
    if names.is_empty() {
        return Err(RedriveError::NoLetters(pipeline.to_owned()));
    }
    let mut places = Vec::new();
    for name in names {
        let topic = topics.get(name).ok_or_else(|| RedriveError::UnknownTopic(name.clone()))?;
        let partitions = topic.partition_count;
        match request.partition {
            Some(partition) if !(0..partitions).contains(&partition) => {
                return Err(RedriveError::UnknownPartition { topic: name.clone(), partition, partitions });
            }
            Some(partition) => places.push(Place { topic, partition }),
            None => {
                places.extend((0..partitions).map(|partition| Place { topic: Arc::clone(&topic), partition }))
            }
        }
    }
    if request.from.is_some() && places.len() != 1 {
        return Err(RedriveError::WhichPartition(places.len()));
    }
    Ok(places)
}

/// Whether an id is of a producer of the broker's own that no pipeline runs: nobody goes on with what a crash has left of it.
fn is_of_no_driver(id: &str) -> bool {
    let own = id.strip_prefix(EMBEDDED_ID_PREFIX);
    own.is_some_and(|own| own.starts_with('@') || own.ends_with(REDRIVE_SUFFIX))
}

/// Aborts what a crash has left open of redrives, and of records over HTTP: consumers of the topics that they have written to
/// would wait for it until it times out.
pub(crate) async fn end_leftovers(transactions: &Transactions) {
    if Mutant::RedriveLeftOpen.is_on() {
        return;
    }
    for transaction in transactions.list() {
        if transaction.state != TxnState::Ongoing || !is_of_no_driver(&transaction.id) {
            continue;
        }
        match transactions.abandon(&transaction.id).await {
            Ok(()) => tracing::info!(id = %transaction.id, "what was left open before the start is aborted"),
            Err(error) => {
                tracing::warn!(id = %transaction.id, %error, "what was left open before the start ends when it times out");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::broker_io::redrive_group_of;
    use super::*;

    #[test]
    fn producers_that_nobody_goes_on_with_are_known() {
        for id in ["pelton.@records", "pelton.p@redrive", &redrive_group_of("partitioner.t")] {
            assert!(is_of_no_driver(id), "{id}");
        }
        for id in ["pelton.p", "pelton.p#3", "mine@redrive", "@records", "pelton.redrive"] {
            assert!(!is_of_no_driver(id), "{id}");
        }
    }
}
