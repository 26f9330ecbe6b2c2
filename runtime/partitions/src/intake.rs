//! Topics that have a server-side partitioner take what clients write in a hidden topic beside them, their *intake*, with as
//! many partitions: sequences, acknowledgements and transactions are those of its partitions. A router reads it and writes each
//! record where the partitioner says.
//!
//! The partitions of an intake take their offsets from one sequence, so an offset says when a batch was appended, whichever
//! partition its client chose: that is the order in which the router takes records. How far that order is known at a moment is
//! [`order_limits`]. A partition that is held back by an open transaction holds up no other.

use std::sync::Arc;

use pelton_commitlog::mutant::Mutant;
use pelton_wire::topic_name::{INTAKE_PREFIX, PLACES_PREFIX};
use uuid::Uuid;

use crate::partition::Partition;
use crate::partition::member::{Moment, next_of};
use crate::topic_config::Overrides;

/// The name of a topic's intake.
pub fn intake_of(topic: Uuid) -> String {
    format!("{INTAKE_PREFIX}{}", topic.simple())
}

/// The topic whose intake has this name, if it is one.
pub fn owner_of(name: &str) -> Option<Uuid> {
    name.strip_prefix(INTAKE_PREFIX)?.parse().ok()
}

/// The name of the topic, of one partition, in which a topic's router notes where it has put what clients wrote.
pub fn places_of(topic: Uuid) -> String {
    format!("{PLACES_PREFIX}{}", topic.simple())
}

/// The topic beside which one of this name is: its intake, or its places.
pub fn beside(name: &str) -> Option<Uuid> {
    owner_of(name).or_else(|| name.strip_prefix(PLACES_PREFIX)?.parse().ok())
}

/// Places are asked for soon, or not at all: they are kept for a day, and no more than so many bytes of them.
pub fn places_settings() -> Overrides {
    let settings = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "86400000"),
        ("retention.bytes", "1073741824"),
        ("segment.bytes", "67108864"),
        ("max.message.bytes", "67108864"),
        ("compression.type", "producer"),
        ("message.timestamp.type", "CreateTime"),
        ("pelton.durability", "group"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// An intake keeps everything until it is routed, and removes files soon after.
pub fn intake_settings() -> Overrides {
    let settings = [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("segment.bytes", "67108864"),
        ("compression.type", "producer"),
        ("message.timestamp.type", "CreateTime"),
        ("pelton.durability", "group"),
    ];
    settings.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

/// Up to which offset (exclusive) the records of each of an intake's partitions may be taken, all of them in the order of their
/// offsets, so that nothing that comes later belongs before what was taken:
///
/// 1. What is at or above the sequence as it was first is left for the next time: it may be in one partition and not in another.
/// 2. Of what is below, each partition has everything in its log once its lock was taken. What is not durable holds back all
///    that is behind it, in every partition.
/// 3. A partition is taken no further than its first transaction that is undecided, which holds up no other; but where a
///    transaction has been decided in one partition and not yet in another, which takes the coordinator a moment, neither is
///    taken any further than that transaction.
pub fn order_limits(partitions: &[&Arc<Partition>]) -> Vec<i64> {
    let Some(intake) = partitions.first().and_then(|first| first.intake()) else {
        return vec![i64::MAX; partitions.len()];
    };
    let mut all = next_of(intake);
    let mut moments = Vec::with_capacity(partitions.len());
    for partition in partitions {
        // Of one that is gone, nothing is known.
        let moment =
            partition.moment().unwrap_or(Moment { stable: 0, pending: Some(0), undecided: Vec::new() });
        if !Mutant::PendingPassed.is_on() {
            all = all.min(moment.pending.unwrap_or(i64::MAX));
        }
        moments.push(moment);
    }
    let own = |moment: &Moment| if moment.undecided.is_empty() { all } else { all.min(moment.stable) };
    let mut limits: Vec<i64> = moments.iter().map(own).collect();
    let undecided: Vec<(usize, i64, i64)> = moments
        .iter()
        .enumerate()
        .flat_map(|(held, moment)| {
            moment.undecided.iter().map(move |(first, producer)| (held, *first, *producer))
        })
        .collect();
    if !undecided.is_empty() && !Mutant::UndecidedPassed.is_on() {
        for (own, (partition, limit)) in partitions.iter().zip(&mut limits).enumerate() {
            *limit = partition.decided_of(&undecided, own).unwrap_or(i64::MAX).min(*limit);
        }
    }
    limits
}

#[cfg(test)]
mod tests;
