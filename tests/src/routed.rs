//! What writers of a topic with a partitioner of its own have written, and whether all of it is where it must be: rounds, one after
//! the other, each of which has every key of a writer once. The partitioner is the plugin `region` over `eu` and `us`.

use crate::records::Read;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What keys begin with.
const REGIONS: [&str; 3] = ["eu", "us", "asia"];
/// Keys of a writer in each of them.
const KEYS: usize = 10;
/// Rounds that the router may have begun with when the topic grew.
const ON_THE_WAY: usize = 5;

/// Partitions of the topic, and once it has grown.
pub const PARTITIONS: [i32; 2] = [3, 6];

/// What must have become of the records of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// They are there.
    There,
    /// They are not.
    Aborted,
    /// Nobody knows: the broker was killed while they were being committed.
    Unknown,
}

/// What one writer has done.
#[derive(Debug)]
pub struct Written<'a> {
    /// Its name, which is in its keys.
    pub name: &'a str,
    /// By round.
    pub fates: &'a [Fate],
}

/// The keys of a writer, in the order in which a round has them.
pub fn keys(writer: &str) -> impl Iterator<Item = String> + '_ {
    REGIONS.iter().flat_map(move |region| (0..KEYS).map(move |key| format!("{region}-{writer}-{key}")))
}

/// The source of the plugin.
pub fn plugin() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../plugins/region")
}

/// Its settings, as a topic has them.
pub const CONFIG: &str = "pelton.partitioner.config={ regions = \"eu,us\" }";

/// The share of a region, of `partitions`.
fn share(key: &str, partitions: i32) -> std::ops::Range<i32> {
    let region = key.split('-').next().unwrap_or_default();
    let place = ["eu", "us"].iter().position(|known| *known == region).unwrap_or(2) as i32;
    place * partitions / 3..(place + 1) * partitions / 3
}

/// Every record that must be there is there once and where the plugin says, in the order in which it was written. The topic grew before
/// the round `grown_at`.
///
/// # Errors
/// What is wrong.
pub fn check(records: &[Read], writers: &[Written<'_>], grown_at: usize) -> Result<()> {
    let mut found: BTreeMap<&str, BTreeMap<i32, Vec<usize>>> = BTreeMap::new();
    for record in records {
        let of_key = found.entry(&record.key).or_default();
        of_key.entry(record.partition).or_default().push(record.value.parse()?);
    }
    for writer in writers {
        for key in keys(writer.name) {
            let read = found.remove(key.as_str()).unwrap_or_default();
            check_key(&key, read, writer.fates, grown_at)?;
        }
    }
    ensure!(found.is_empty(), "nobody wrote {:?}", found.keys());
    Ok(())
}

/// The rounds of a key, by partition.
fn check_key(key: &str, read: BTreeMap<i32, Vec<usize>>, fates: &[Fate], grown_at: usize) -> Result<()> {
    for (partition, rounds) in &read {
        for round in rounds {
            // What was on its way when the topic grew was placed before or after that.
            let before = *round < grown_at + ON_THE_WAY && share(key, PARTITIONS[0]).contains(partition);
            let after = *round >= grown_at && share(key, PARTITIONS[1]).contains(partition);
            ensure!(before || after, "{key}: round {round} is in partition {partition}");
        }
    }
    let mut parts: Vec<Vec<usize>> = read.into_values().collect();
    parts.sort_by_key(|rounds| rounds.first().copied());
    let rounds = parts.concat();
    ensure!(rounds.is_sorted(), "{key}: {parts:?} are not in order");
    ensure!(rounds.windows(2).all(|two| two[0] != two[1]), "{key}: {rounds:?} come twice");
    for (round, fate) in fates.iter().enumerate() {
        let is_there = rounds.binary_search(&round).is_ok();
        ensure!(*fate != Fate::There || is_there, "{key}: round {round} was lost");
        ensure!(*fate != Fate::Aborted || !is_there, "{key}: round {round} was aborted, and is there");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: &str, partition: i32, round: usize) -> Read {
        let (key, value) = (key.to_owned(), round.to_string());
        Read { partition, offset: 0, key, value, headers: Vec::new() }
    }

    #[test]
    fn what_is_wrong_is_found() {
        let fates = [Fate::There, Fate::Aborted, Fate::Unknown, Fate::There];
        let writers = [Written { name: "w", fates: &fates }];
        let rounds = |rounds: &[usize]| -> Vec<Read> {
            let of_key = |key: &String| {
                let partition = share(key, 3).start;
                rounds.iter().map(|round| read(key, partition, *round)).collect::<Vec<_>>()
            };
            keys("w").collect::<Vec<_>>().iter().flat_map(of_key).collect()
        };
        let said = |records: Vec<Read>| check(&records, &writers, 9).map_err(|error| error.to_string());
        assert_eq!(said(rounds(&[0, 3])), Ok(()));
        assert_eq!(said(rounds(&[0, 2, 3])), Ok(()));
        for (wrong, words) in [
            (rounds(&[0]), "eu-w-0: round 3 was lost"),
            (rounds(&[0, 1, 3]), "eu-w-0: round 1 was aborted, and is there"),
            (rounds(&[0, 3, 3]), "come twice"),
            (rounds(&[3, 0]), "not in order"),
            ([rounds(&[0, 3]), vec![read("eu-x-0", 0, 0)]].concat(), "nobody wrote"),
            ([rounds(&[0, 3]), vec![read("eu-w-0", 2, 4)]].concat(), "round 4 is in partition 2"),
        ] {
            let error = said(wrong).expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }
}
