//! What a sample of a topic's records says of how its producers place keys.

use crate::rule::KeyRule;
use std::collections::HashMap;

/// Most keys that are compared with the partitions of a topic as it once was: each of them costs a hash for each rule and
/// number of partitions.
const FORMER_KEYS_MAX: usize = 2_000;
/// Numbers of partitions that a topic may have had, from 1; larger ones are not tried.
const FORMER_PARTITIONS_MAX: u32 = 1_024;
/// Most rules that together explain a topic.
const PARTS_MAX: usize = 4;
/// Bits of surprise that a rule's hits must have over chance before it is believed: one in a million.
const SURE_BITS: f64 = 20.0;

/// Records of a topic, as they are read.
#[derive(Debug)]
pub struct Sample {
    partitions: Vec<Counts>,
    /// The partitions in which each key was seen, in the order in which they were. The empty key is not among them.
    keys: HashMap<Box<[u8]>, Vec<u32>>,
    /// Where records with an empty key were.
    empty: Vec<u32>,
}

/// What was seen of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records.
    pub records: u64,
    /// Those without a key.
    pub keyless: u64,
    /// Different keys.
    pub keys: u64,
}

/// What a sample says.
#[derive(Debug, Clone, PartialEq)]
pub struct Findings {
    /// Of each partition.
    pub partitions: Vec<Counts>,
    /// Records that were read.
    pub records: u64,
    /// Those without a key.
    pub keyless: u64,
    /// Partitions in which an empty key was seen.
    pub empty_key_partitions: u64,
    /// Different keys; an empty one counts.
    pub keys: u64,
    /// Keys that were seen in several partitions; an empty one does not count, because librdkafka spreads it.
    pub scattered_keys: u64,
    /// Each rule by itself, with today's number of partitions: the best one first.
    pub fits: Vec<Fit>,
    /// What follows.
    pub verdict: Verdict,
}

/// How the keys of a sample lie, seen by one rule. A key in two partitions counts twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fit {
    /// The rule.
    pub rule: KeyRule,
    /// Keys where it would put them.
    pub here: u64,
    /// Keys where it would not.
    pub elsewhere: u64,
}

/// How a topic's producers place keys.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// No record was read.
    Empty,
    /// No record has a key, so no rule applies.
    Keyless,
    /// Every rule puts every key into the one partition.
    OnePartition,
    /// Every key is where each of these rules would put it.
    Explained {
        /// The rules; those that pelton places by come first.
        rules: Vec<KeyRule>,
        /// Whether the keys are so many that it is no chance.
        sure: bool,
    },
    /// Some keys are where one rule would put them, others where another one would, or where they were before the topic
    /// grew.
    Parts {
        /// The rules, by how many keys are left for them by those before.
        parts: Vec<Part>,
        /// Keys that none of them would have put where they are.
        unexplained: u64,
    },
    /// No rule explains more keys than chance does.
    Unexplained,
}

/// Keys that a rule explains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// The rule.
    pub rule: KeyRule,
    /// The number of partitions that the topic had when it did: today's, or a smaller one.
    pub partitions: u32,
    /// How many keys.
    pub keys: u64,
}

/// A key, and a partition in which it is.
type Place<'s> = (&'s [u8], u32);

impl Sample {
    /// Of a topic with so many partitions.
    pub fn new(partitions: u32) -> Sample {
        let partitions = vec![Counts::default(); partitions as usize];
        Sample { partitions, keys: HashMap::new(), empty: Vec::new() }
    }

    /// Adds a record. One of a partition that the topic did not have when the sample began is left out.
    pub fn add(&mut self, partition: u32, key: Option<&[u8]>) {
        let Some(counts) = self.partitions.get_mut(partition as usize) else { return };
        counts.records += 1;
        let Some(key) = key else {
            counts.keyless += 1;
            return;
        };
        let places = if key.is_empty() {
            &mut self.empty
        } else {
            match self.keys.get_mut(key) {
                Some(places) => places,
                None => self.keys.entry(key.into()).or_default(),
            }
        };
        if !places.contains(&partition) {
            places.push(partition);
            counts.keys += 1;
        }
    }

    /// What follows from the records that were added.
    pub fn findings(&self) -> Findings {
        let sum = |what: fn(&Counts) -> u64| self.partitions.iter().map(what).sum::<u64>();
        let (records, keyless) = (sum(|counts| counts.records), sum(|counts| counts.keyless));
        let places = self.places();
        let n = self.partitions.len() as u32;
        let fits = fits(&places, n);
        let verdict = if records == 0 {
            Verdict::Empty
        } else if places.is_empty() {
            Verdict::Keyless
        } else if n <= 1 {
            Verdict::OnePartition
        } else {
            explained(&places, &fits, n).unwrap_or_else(|| parts(places, n))
        };
        Findings {
            partitions: self.partitions.clone(),
            records,
            keyless,
            empty_key_partitions: self.empty.len() as u64,
            keys: self.keys.len() as u64 + u64::from(!self.empty.is_empty()),
            scattered_keys: self.keys.values().filter(|places| places.len() > 1).count() as u64,
            fits,
            verdict,
        }
    }

    /// Every key with each of its partitions, in an order that is always the same.
    fn places(&self) -> Vec<Place<'_>> {
        let keyed = self.keys.iter().flat_map(|(key, at)| at.iter().map(move |at| (key.as_ref(), *at)));
        let mut places: Vec<Place<'_>> = keyed.chain(self.empty.iter().map(|at| (&b""[..], *at))).collect();
        places.sort_unstable();
        places
    }
}

/// Each rule alone, the best first.
fn fits(places: &[Place<'_>], n: u32) -> Vec<Fit> {
    let mut fits: Vec<Fit> = KeyRule::ALL.map(|rule| fit(rule, places, n)).into();
    // Stable: of equals those that pelton places by come first.
    fits.sort_by_key(|fit| (fit.elsewhere, std::cmp::Reverse(fit.here)));
    fits
}

fn fit(rule: KeyRule, places: &[Place<'_>], n: u32) -> Fit {
    let mut fit = Fit { rule, here: 0, elsewhere: 0 };
    for (key, at) in places {
        match rule.partition(key, n) {
            Some(placed) if placed == *at => fit.here += 1,
            Some(_) => fit.elsewhere += 1,
            None => {}
        }
    }
    fit
}

/// The rules that explain every key, if any does.
fn explained(places: &[Place<'_>], fits: &[Fit], n: u32) -> Option<Verdict> {
    let whole: Vec<&Fit> = fits.iter().filter(|fit| fit.elsewhere == 0 && fit.here > 0).collect();
    let most = whole.first()?.here;
    let has_empty_key = places.first().is_some_and(|(key, _)| key.is_empty());
    let rules = whole.iter().filter(|fit| fit.here == most).map(|fit| fit.rule);
    // It differs from librdkafka's in the empty key alone.
    let rules = rules.filter(|rule| has_empty_key || *rule != KeyRule::SaramaCrc);
    let sure = surprise(most, most, n) >= bits_of(KeyRule::ALL.len());
    Some(Verdict::Explained { rules: rules.collect(), sure })
}

/// The rules that together explain most: the best one, then the best one for what it leaves.
fn parts(mut left: Vec<Place<'_>>, n: u32) -> Verdict {
    let mut parts = Vec::new();
    while !left.is_empty() && parts.len() < PARTS_MAX {
        let Some((rule, partitions)) = best(&left, n) else { break };
        let keys = fit(rule, &left, partitions).here;
        left.retain(|(key, at)| rule.partition(key, partitions).is_some_and(|placed| placed != *at));
        parts.push(Part { rule, partitions, keys });
    }
    if parts.is_empty() {
        Verdict::Unexplained
    } else {
        Verdict::Parts { parts, unexplained: left.len() as u64 }
    }
}

/// The rule, and the number of partitions, that explains most places and more than chance does.
fn best(places: &[Place<'_>], n: u32) -> Option<(KeyRule, u32)> {
    let evenly = places.len().div_ceil(FORMER_KEYS_MAX);
    let some: Vec<Place<'_>> = places.iter().step_by(evenly.max(1)).copied().collect();
    let formers = 1..n.min(FORMER_PARTITIONS_MAX + 1);
    let bits = bits_of(KeyRule::ALL.len() * (formers.len() + 1));
    let today = KeyRule::ALL.map(|rule| (fit(rule, &some, n), n));
    let before = formers.rev().flat_map(|former| KeyRule::ALL.map(|rule| (fit(rule, &some, former), former)));
    // What a topic has grown from is believed of most keys alone: a partition that has many keys for another reason
    // would look like a topic that was small.
    let before = before.filter(|(fit, _)| fit.here > fit.elsewhere);
    let known = today.into_iter().chain(before);
    let known = known.filter(|(fit, _)| surprise(fit.here, fit.here + fit.elsewhere, n) >= bits);
    // The first of equals.
    let known = known.reduce(|best, next| if next.0.here > best.0.here { next } else { best });
    known.map(|(fit, partitions)| (fit.rule, partitions))
}

/// How many bits of surprise it is that so many of all keys are where a rule puts them, if they were placed without it:
/// Chernoff's bound of a binomial tail with a chance of one in n.
fn surprise(hits: u64, all: u64, n: u32) -> f64 {
    let (p, q) = (1.0 / f64::from(n.max(1)), hits as f64 / all.max(1) as f64);
    if q <= p {
        return 0.0;
    }
    let miss = if q < 1.0 { (1.0 - q) * ((1.0 - q) / (1.0 - p)).log2() } else { 0.0 };
    all as f64 * (q * (q / p).log2() + miss)
}

/// What the best of so many rules must have to be believed.
fn bits_of(tried: usize) -> f64 {
    SURE_BITS + (tried as f64).log2()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(i: u32) -> Vec<u8> {
        format!("flight-{i}").into_bytes()
    }

    /// Keys that each of these rules places, with the partitions of a topic that it knew.
    fn sample(n: u32, parts: &[(KeyRule, u32, std::ops::Range<u32>)]) -> Sample {
        let mut sample = Sample::new(n);
        for (rule, partitions, keys) in parts {
            for key in keys.clone().map(key) {
                sample.add(rule.partition(&key, *partitions).expect("no key is empty"), Some(&key));
            }
        }
        sample
    }

    fn verdict(n: u32, parts: &[(KeyRule, u32, std::ops::Range<u32>)]) -> Verdict {
        sample(n, parts).findings().verdict
    }

    /// Keys in partitions of no rule.
    fn scattered(n: u32, keys: u32) -> Sample {
        let mut sample = Sample::new(n);
        for i in 0..keys {
            sample.add(i.wrapping_mul(2_654_435_761) / 7 % n, Some(&key(i)));
        }
        sample
    }

    #[test]
    fn each_rule_is_found_by_itself() {
        for rule in KeyRule::ALL {
            for n in [3, 12, 1000] {
                // Without an empty key both are the same.
                let expect = if rule == KeyRule::SaramaCrc { KeyRule::Crc32 } else { rule };
                let found = verdict(n, &[(rule, n, 0..200)]);
                assert_eq!(found, Verdict::Explained { rules: vec![expect], sure: true }, "{rule} {n}");
            }
        }
    }

    #[test]
    fn nothing_can_be_said_of_some_topics() {
        assert_eq!(Sample::new(3).findings().verdict, Verdict::Empty);
        assert_eq!(Sample::new(0).findings().verdict, Verdict::Empty);
        let mut keyless = Sample::new(3);
        keyless.add(1, None);
        assert_eq!(keyless.findings().verdict, Verdict::Keyless);
        assert_eq!(verdict(1, &[(KeyRule::Murmur2, 1, 0..9)]), Verdict::OnePartition);
        assert_eq!(scattered(12, 3_000).findings().verdict, Verdict::Unexplained);
        assert_eq!(scattered(2, 3_000).findings().verdict, Verdict::Unexplained);
    }

    /// Two partitions cannot tell FNV-1a's two signs apart, and one key can tell little.
    #[test]
    fn rules_that_explain_equally_are_all_named() {
        let fnv = Verdict::Explained { rules: vec![KeyRule::Fnv1a, KeyRule::SaramaReference], sure: true };
        assert_eq!(verdict(2, &[(KeyRule::SaramaReference, 2, 0..200)]), fnv);
        let Verdict::Explained { rules, sure } = verdict(2, &[(KeyRule::Murmur2, 2, 0..1)]) else {
            panic!("one key is explained by several")
        };
        assert!(rules.len() > 1 && rules[0] == KeyRule::Murmur2 && !sure, "{rules:?}");
        let few = verdict(12, &[(KeyRule::Murmur2, 12, 0..4)]);
        assert_eq!(few, Verdict::Explained { rules: vec![KeyRule::Murmur2], sure: false });
    }

    #[test]
    fn an_empty_key_tells_librdkafka_from_sarama() {
        let crc = [(KeyRule::Crc32, 12, 0..200)];
        let only = |rule| Verdict::Explained { rules: vec![rule], sure: true };
        let mut sarama = sample(12, &crc);
        sarama.add(0, Some(b""));
        assert_eq!(sarama.findings().verdict, only(KeyRule::SaramaCrc));
        let mut librdkafka = sample(12, &crc);
        for partition in [3, 7, 3] {
            librdkafka.add(partition, Some(b""));
        }
        let found = librdkafka.findings();
        assert_eq!(found.verdict, only(KeyRule::Crc32));
        assert_eq!((found.keys, found.empty_key_partitions, found.scattered_keys), (201, 2, 0));
    }

    #[test]
    fn producers_that_disagree_are_told_apart() {
        let both = [(KeyRule::Murmur2, 12, 0..500), (KeyRule::Crc32, 12, 400..700)];
        let found = sample(12, &both).findings();
        // Every twelfth key is where both would put it, and those of both are in two partitions but for these.
        let Verdict::Parts { parts, unexplained: 0 } = &found.verdict else { panic!("{:?}", found.verdict) };
        let rules: Vec<_> = parts.iter().map(|part| (part.rule, part.partitions)).collect();
        assert_eq!(rules, [(KeyRule::Murmur2, 12), (KeyRule::Crc32, 12)]);
        assert_eq!(found.keys, 700);
        assert!((80..=100).contains(&found.scattered_keys), "{}", found.scattered_keys);
        assert_eq!(parts.iter().map(|part| part.keys).sum::<u64>(), 700 + found.scattered_keys);
        let fit = found.fits[0];
        assert_eq!((fit.rule, fit.here + fit.elsewhere), (KeyRule::Murmur2, 700 + found.scattered_keys));
    }

    #[test]
    fn keys_that_nobody_would_put_where_they_are_are_counted() {
        let mut some = sample(12, &[(KeyRule::Fnv1a, 12, 0..500)]);
        for i in 500..520 {
            let key = key(i);
            let taken = KeyRule::ALL.map(|rule| rule.partition(&key, 12));
            let free = (0..12).find(|at| !taken.contains(&Some(*at))).expect("7 rules leave 5 partitions");
            some.add(free, Some(&key));
        }
        let part = Part { rule: KeyRule::Fnv1a, partitions: 12, keys: 500 };
        assert_eq!(some.findings().verdict, Verdict::Parts { parts: vec![part], unexplained: 20 });
    }

    #[test]
    fn a_topic_that_has_grown_shows_what_it_was() {
        let grown = [(KeyRule::Murmur2, 6, 0..800), (KeyRule::Murmur2, 9, 800..1_000)];
        let Verdict::Parts { parts, unexplained } = verdict(9, &grown) else {
            panic!("two sizes are two parts")
        };
        let places: Vec<_> = parts.iter().map(|part| (part.rule, part.partitions)).collect();
        assert_eq!(places, [(KeyRule::Murmur2, 6), (KeyRule::Murmur2, 9)]);
        assert_eq!((parts.iter().map(|part| part.keys).sum::<u64>(), unexplained), (1_000, 0));
        // Nobody has written since.
        let before = Part { rule: KeyRule::Crc32, partitions: 3, keys: 500 };
        let found = verdict(4, &[(KeyRule::Crc32, 3, 0..500)]);
        assert_eq!(found, Verdict::Parts { parts: vec![before], unexplained: 0 });
        // `consistent` hides it: what stays is where it is now, and what does not is where it was.
        let Verdict::Parts { parts, .. } = verdict(9, &[(KeyRule::Consistent, 6, 0..800)]) else {
            panic!("parts")
        };
        assert_eq!((parts[0].rule, parts[0].partitions), (KeyRule::Consistent, 6));
    }

    #[test]
    fn a_partition_with_most_keys_is_no_topic_that_was_small() {
        let mut hot = scattered(12, 600);
        for i in 600..1_000 {
            hot.add(0, Some(&key(i)));
        }
        assert_eq!(hot.findings().verdict, Verdict::Unexplained);
    }

    #[test]
    fn counts_are_of_partitions() {
        let mut sample = Sample::new(2);
        for (partition, key) in
            [(0, None), (0, Some("a")), (0, Some("a")), (1, Some("a")), (1, Some("b")), (2, None)]
        {
            sample.add(partition, key.map(str::as_bytes));
        }
        let found = sample.findings();
        let expect = [(3, 1, 1), (2, 0, 2)].map(|(records, keyless, keys)| Counts { records, keyless, keys });
        assert_eq!(found.partitions, expect);
        assert_eq!((found.records, found.keyless, found.keys, found.scattered_keys), (5, 1, 2, 1));
    }

    #[test]
    fn surprise_is_in_bits() {
        assert!((surprise(20, 20, 2) - 20.0).abs() < 1e-9);
        assert!((surprise(3, 3, 12) - 3.0 * 12_f64.log2()).abs() < 1e-9);
        assert_eq!(surprise(10, 40, 4), 0.0);
        assert!(surprise(20, 40, 4) > surprise(15, 40, 4));
        assert_eq!(surprise(0, 0, 12), 0.0);
    }
}
