//! Where a router has put what clients wrote to a topic with a partitioner of its own.
//!
//! With each transaction that has outputs the router writes one record to the topic beside (`__pelton_places_<topic id>`, one
//! partition), in that transaction, so it says what is committed and nothing else. Its value:
//!
//! ```text
//! version(1) = 1
//! n, then for each partition of the intake: up to where it is routed
//! n, then for each partition of the topic that was written to: its number, and the first offset
//! for each record, in the order of the intake's offsets: its offset, less that of the one before; which of those partitions
//!   (by index); its offset there, less that of the one before it there
//! ```
//!
//! Numbers are LEB128. Up to where a partition of the intake is routed never falls from one record to the next, so the record that
//! has a ticket's place is found by halving. A record of the intake that is in none was left out by `on_error`, or aborted.

use std::collections::BTreeMap;

use pelton_wire::record::Columns;

use super::broker_io::{ReadFault, read_committed};
use crate::partition::{Isolation, Partition};

const VERSION: u8 = 1;

/// A record that a router has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Placed {
    /// Its offset in the intake, which no other record there has, whatever its partition.
    pub(super) ticket: i64,
    pub(super) partition: i32,
    pub(super) offset: i64,
}

/// What is known of a ticket that is routed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// It is in this partition, at this offset.
    At(i32, i64),
    /// It is nowhere: `on_error` has left it out, or its transaction was aborted.
    Nowhere,
    /// Places as old as this one are not kept.
    Forgotten,
}

fn push(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads numbers, none that is larger than an offset.
struct Numbers<'a>(&'a [u8]);

impl Numbers<'_> {
    fn next(&mut self) -> Option<i64> {
        let mut number = 0_u64;
        for shift in (0..63).step_by(7) {
            let (&byte, rest) = self.0.split_first()?;
            self.0 = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return i64::try_from(number).ok();
            }
        }
        None
    }
}

/// The record of a transaction. `routed`: up to where each partition of the intake is.
pub(super) fn encode(routed: &[i64], placed: &mut [Placed]) -> Vec<u8> {
    placed.sort_unstable();
    let mut firsts: BTreeMap<i32, i64> = BTreeMap::new();
    for Placed { partition, offset, .. } in &*placed {
        let first = firsts.entry(*partition).or_insert(*offset);
        *first = (*first).min(*offset);
    }
    let mut out = vec![VERSION];
    push(&mut out, routed.len() as u64);
    routed.iter().for_each(|next| push(&mut out, next.unsigned_abs()));
    push(&mut out, firsts.len() as u64);
    for (partition, first) in &firsts {
        push(&mut out, u64::from(partition.unsigned_abs()));
        push(&mut out, first.unsigned_abs());
    }
    let partitions: Vec<i32> = firsts.keys().copied().collect();
    let mut before_there: Vec<i64> = firsts.into_values().collect();
    let mut before = 0;
    for Placed { ticket, partition, offset } in &*placed {
        let Ok(index) = partitions.binary_search(partition) else { continue };
        push(&mut out, (ticket - before).unsigned_abs());
        push(&mut out, index as u64);
        push(&mut out, (offset - before_there[index]).unsigned_abs());
        (before, before_there[index]) = (*ticket, *offset);
    }
    out
}

/// What a record says.
struct Note<'a> {
    routed: Vec<i64>,
    /// Partitions, each with an offset.
    there: Vec<(i64, i64)>,
    rest: Numbers<'a>,
}

impl Note<'_> {
    fn read(value: &[u8]) -> Option<Note<'_>> {
        let (&version, rest) = value.split_first()?;
        let mut numbers = Numbers(rest);
        (version == VERSION).then_some(())?;
        let partitions = numbers.next()?;
        let routed = (0..partitions).map(|_| numbers.next()).collect::<Option<_>>()?;
        let partitions = numbers.next()?;
        let there =
            (0..partitions).map(|_| Some((numbers.next()?, numbers.next()?))).collect::<Option<_>>()?;
        Some(Note { routed, there, rest: numbers })
    }

    /// Whether this transaction, or one before it, has routed an offset of a partition of the intake.
    fn is_past(&self, partition: i32, ticket: i64) -> bool {
        let routed = usize::try_from(partition).ok().and_then(|partition| self.routed.get(partition));
        routed.is_some_and(|routed| *routed > ticket)
    }

    /// Where this transaction has put what has a ticket.
    fn find(mut self, wanted: i64) -> Option<(i32, i64)> {
        let mut ticket = 0_i64;
        while let Some(more) = self.rest.next() {
            ticket = ticket.checked_add(more)?;
            let (partition, offset) = self.there.get_mut(usize::try_from(self.rest.next()?).ok()?)?;
            *offset = offset.checked_add(self.rest.next()?)?;
            if ticket == wanted {
                return Some((i32::try_from(*partition).ok()?, *offset));
            }
        }
        None
    }
}

/// A record of the topic: where the next one is, at the earliest, and what it says.
type Found = Option<(i64, Vec<u8>)>;

/// The first committed record at or behind an offset.
fn first_from(places: &Partition, mut from: i64) -> Result<Found, ReadFault> {
    let end = places.readable_end(Isolation::ReadCommitted);
    let mut records = Columns::new();
    while from < end {
        from = match read_committed(places, from, end, false, &mut records) {
            Err(ReadFault::Deleted) => places.log_start_offset(),
            read => read?,
        };
        if let Some(offset) = records.offsets().first() {
            let value = records.values().get(records.data(), 0).unwrap_or_default();
            return Ok(Some((offset + 1, value.to_vec())));
        }
    }
    Ok(None)
}

/// Where the record is that has an offset in a partition of the intake, all of which is routed up to there.
pub(crate) fn find(places: &Partition, partition: i32, ticket: i64) -> Result<Whereabouts, ReadFault> {
    let is_past = |found: &Found| {
        found.as_ref().is_none_or(|(_, value)| {
            // What cannot be read is of a later version.
            Note::read(value).is_none_or(|note| note.is_past(partition, ticket))
        })
    };
    let start = places.log_start_offset();
    let (mut low, mut high) = (start, places.readable_end(Isolation::ReadCommitted));
    // All records that begin before `low` are too early; the first one from `high` on is not.
    while low < high {
        let middle = low + (high - low) / 2;
        let found = first_from(places, middle)?;
        if is_past(&found) {
            high = middle;
        } else {
            low = found.map_or(high, |(next, _)| next);
        }
    }
    let is_oldest = start > 0 && first_from(places, start)?.is_none_or(|(next, _)| next > high);
    let at = first_from(places, high)?.and_then(|(_, value)| Note::read(&value)?.find(ticket));
    Ok(match at {
        Some((partition, offset)) => Whereabouts::At(partition, offset),
        None if is_oldest => Whereabouts::Forgotten,
        None => Whereabouts::Nowhere,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(ticket: i64, partition: i32, offset: i64) -> Placed {
        Placed { ticket, partition, offset }
    }

    #[test]
    fn the_bytes_of_version_1_are_fixed() {
        let mut all = [placed(9, 2, 300), placed(7, 0, 5), placed(12, 2, 301)];
        let bytes = encode(&[10, 200], &mut all);
        let expect = [1, 2, 10, 200, 1, 2, 0, 5, 2, 172, 2, 7, 0, 0, 2, 1, 0, 3, 1, 1];
        assert_eq!(bytes, expect);
        let find = |ticket| Note::read(&bytes).unwrap().find(ticket);
        assert_eq!(find(7), Some((0, 5)));
        assert_eq!(find(9), Some((2, 300)));
        assert_eq!(find(12), Some((2, 301)));
        assert_eq!(find(8), None);
        let note = Note::read(&bytes).unwrap();
        assert!(note.is_past(0, 9) && !note.is_past(0, 10) && note.is_past(1, 199) && !note.is_past(2, 0));
    }

    #[test]
    fn what_is_no_record_of_places_says_nothing() {
        let bytes = encode(&[1 << 40, i64::MAX], &mut [placed(i64::MAX - 1, i32::MAX, i64::MAX)]);
        assert_eq!(Note::read(&bytes).unwrap().find(i64::MAX - 1), Some((i32::MAX, i64::MAX)));
        for cut in 0..bytes.len() {
            let found = Note::read(&bytes[..cut]).and_then(|note| note.find(i64::MAX - 1));
            assert_eq!(found, None, "{cut}");
        }
        let [later, damaged, endless] = [vec![2, 0, 0], vec![1, 0, 1, 0, 0, 0, 9, 0], vec![1; 400]];
        assert!(Note::read(&later).is_none());
        assert_eq!(Note::read(&damaged).unwrap().find(0), None);
        assert_eq!(Note::read(&endless).and_then(|note| note.find(i64::MAX)), None);
        assert!(Note::read(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]).is_none());
    }
}
