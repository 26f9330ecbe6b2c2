//! Dead letters, read back: which record a letter is about, and that record as it was.

use std::collections::BTreeSet;

use crate::batch::RecordIn;
use crate::manifest::{Manifest, OnError};
use crate::task::{ORIGINAL_TIMESTAMP_HEADER, PLUGIN_HEADER};

/// The headers that a letter has behind those of its record, in their order. They are written by
/// [`dead_letter_headers`](crate::task::dead_letter_headers), and [`PLUGIN_HEADER`] comes behind them if the node runs a plugin.
const HEADERS: [&str; 7] = [
    "pelton.error.pipeline",
    "pelton.error.node",
    "pelton.error.topic",
    "pelton.error.partition",
    "pelton.error.offset",
    "pelton.error.kind",
    "pelton.error.reason",
];

/// A record that a node could not process.
#[derive(Debug, Clone, Copy)]
pub struct DeadLetter<'a> {
    /// The pipeline.
    pub pipeline: &'a str,
    /// The node.
    pub node: &'a str,
    /// The component that the node ran; none of one without a plugin, and in letters that say nothing of it.
    pub plugin: Option<&'a str>,
    /// The topic that the record was read from.
    pub topic: &'a str,
    /// Its partition there.
    pub partition: i32,
    /// Its offset there; below 0 for none.
    pub offset: i64,
    /// The record with its own headers and timestamp. Its `offset` is the letter's.
    pub record: RecordIn<'a>,
}

impl<'a> DeadLetter<'a> {
    /// Reads a record of a dead-letter topic. None: it is no letter, but something that somebody else wrote there.
    pub fn read(letter: RecordIn<'a>) -> Option<DeadLetter<'a>> {
        let all: Vec<(&[u8], Option<&[u8]>)> = letter.headers.collect();
        let text = |value: Option<&'a [u8]>| std::str::from_utf8(value?).ok();
        let (timestamp, headers) = match all.split_last() {
            Some(((name, value), before)) if *name == ORIGINAL_TIMESTAMP_HEADER.as_bytes() => {
                (text(*value)?.parse().ok()?, before)
            }
            _ => (letter.timestamp, &all[..]),
        };
        let (plugin, headers) = match headers.split_last() {
            Some(((name, value), before)) if *name == PLUGIN_HEADER.as_bytes() => {
                (Some(text(*value)?), before)
            }
            _ => (None, headers),
        };
        let own = headers.len().checked_sub(HEADERS.len())?;
        let reason = &headers[own..];
        if reason.iter().zip(HEADERS).any(|((name, _), known)| *name != known.as_bytes()) {
            return None;
        }
        let value = |index: usize| text(reason[index].1);
        Some(DeadLetter {
            pipeline: value(0)?,
            node: value(1)?,
            plugin,
            topic: value(2)?,
            partition: value(3)?.parse().ok()?,
            offset: value(4)?.parse().ok()?,
            record: RecordIn { timestamp, headers: letter.headers.first(own), ..letter },
        })
    }
}

/// The topics that a pipeline sends dead letters to.
pub fn topics_of(manifest: &Manifest) -> BTreeSet<String> {
    let nodes = manifest.nodes.iter().map(|node| &node.on_error);
    let operators = manifest.operators.iter().map(|node| &node.on_error);
    let sinks = manifest.sinks.iter().filter_map(|sink| sink.on_error.as_ref());
    let all = nodes.chain(operators).chain(sinks);
    all.filter_map(OnError::dead_letter_topic).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::Digest;
    use crate::batch::OwnedBatch;
    use crate::plugin::{PluginError, PluginInfo};
    use crate::task::{TaskFailure, dead_letter_headers};
    use crate::topology::Topology;
    use crate::world::World;

    type Header<'a> = (&'a [u8], Option<&'a [u8]>);

    fn h<'a>(name: &'a [u8], value: Option<&'a [u8]>) -> Header<'a> {
        (name, value)
    }

    fn batch(timestamp: i64, headers: &[Header<'_>]) -> OwnedBatch {
        let mut batch = OwnedBatch::new("dead", 0);
        let (key, value) = (Some(&b"k"[..]), None);
        let record = RecordIn { offset: 7, timestamp, key, value, headers: crate::batch::Headers::default() };
        batch.push(record, headers.iter().copied()).unwrap();
        batch
    }

    /// The headers of a letter of offset 5 as they are written, of a node with a plugin or of one without.
    fn written(node: &str) -> Vec<(&'static str, String)> {
        let digest = Digest::new([7; 32]);
        let info = PluginInfo { digest, world: World::Transform, manifest: None, bytes: 1 };
        let manifest = Manifest::parse(
            "name = \"p\"\n[[source]]\nid = \"s\"\ntopic = \"in\"\n[[node]]\nid = \"n\"\nfrom = \"s\"\nplugin = \"x\"\n\
             [[node]]\nid = \"f\"\nfrom = \"n\"\nfilter = \"json:x > 1\"\n[[sink]]\nfrom = \"f\"\ntopic = \"out\"\n",
        );
        let infos = BTreeMap::from([("n".to_owned(), info)]);
        let topology = Topology::link(&manifest.unwrap(), &infos).unwrap();
        let failure = TaskFailure {
            node: node.to_owned(),
            topic: "in".to_owned(),
            partition: 3,
            offset: 5,
            last_offset: 5,
            error: PluginError::Fatal("why".to_owned()).into(),
        };
        dead_letter_headers(&topology, &failure)
    }

    #[test]
    fn a_letter_gives_back_the_record_that_it_is_about() {
        for (node, plugin) in [("n", Some(Digest::new([7; 32]).to_string())), ("f", None)] {
            gives_back(node, plugin.as_deref());
        }
    }

    fn gives_back(node: &str, plugin: Option<&str>) {
        let written = written(node);
        let ours: Vec<Header<'_>> =
            written.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes()))).collect();
        let own: Vec<Header<'_>> =
            vec![h(b"a", None), h(b"pelton.error.node", Some(b"x")), h(b"\xff", Some(b""))];
        let none: &[Header<'_>] = &[];
        for own in [&own[..], none] {
            let all: Vec<Header<'_>> = own.iter().chain(&ours).copied().collect();
            let letter = batch(11, &all);
            let read = DeadLetter::read(letter.as_batch().record(0).unwrap()).unwrap();
            assert_eq!((read.pipeline, read.node, read.plugin), ("p", node, plugin));
            assert_eq!((read.topic, read.partition, read.offset), ("in", 3, 5));
            assert_eq!((read.record.offset, read.record.timestamp), (7, 11));
            assert_eq!((read.record.key, read.record.value), (Some(&b"k"[..]), None));
            assert_eq!(read.record.headers.collect::<Vec<_>>(), own);
            // Its topic did not take the timestamp.
            let late = [all, vec![h(b"pelton.error.timestamp", Some(b"-5"))]].concat();
            let letter = batch(99, &late);
            let read = DeadLetter::read(letter.as_batch().record(0).unwrap()).unwrap();
            assert_eq!((read.record.timestamp, read.record.headers.count()), (-5, own.len()));
        }
        // A record that was a letter once, and is one again: one trailer goes.
        let twice: Vec<Header<'_>> = ours.iter().chain(&ours).copied().collect();
        let letter = batch(11, &twice);
        let read = DeadLetter::read(letter.as_batch().record(0).unwrap()).unwrap();
        assert_eq!(read.record.headers.collect::<Vec<_>>(), ours);
    }

    #[test]
    fn what_is_no_letter_is_none() {
        let written = written("f");
        let ours: Vec<Header<'_>> =
            written.iter().map(|(name, value)| (name.as_bytes(), Some(value.as_bytes()))).collect();
        let with = |index: usize, header: Header<'static>| {
            let mut headers = ours.clone();
            headers[index] = header;
            headers
        };
        let behind: Vec<Header<'_>> = ours.iter().copied().chain([h(b"x", None)]).collect();
        for headers in [
            vec![],
            ours[..6].to_vec(),
            [&ours[..6], &[h(b"pelton.error.plugin", Some(b"sha256:"))]].concat(),
            [&ours[..], &[h(b"pelton.error.plugin", None)]].concat(),
            with(0, h(b"pelton.error.pipelin", Some(b"p"))),
            with(3, h(b"pelton.error.partition", Some(b"three"))),
            with(4, h(b"pelton.error.offset", None)),
            with(2, h(b"pelton.error.topic", Some(b"\xff"))),
            behind,
        ] {
            let letter = batch(1, &headers);
            assert!(DeadLetter::read(letter.as_batch().record(0).unwrap()).is_none(), "{headers:?}");
        }
    }

    #[test]
    fn every_policy_of_a_manifest_is_looked_at() {
        let text = r#"
name = "p"
[[source]]
id = "in"
topic = "t"
[[node]]
id = "a"
from = "in"
plugin = "x"
on_error = { policy = "retry", then = "dead-letter", topic = "dead-a" }
[[node]]
id = "b"
from = "in"
filter = "json:x > 1"
on_error = { policy = "dead-letter", topic = "dead-b" }
[[sink]]
from = "a"
topic = "out"
[[sink]]
from = "in"
topic = "copy"
on_error = { policy = "dead-letter", topic = "dead-a" }
"#;
        let topics = topics_of(&Manifest::parse(text).unwrap());
        assert_eq!(topics.iter().map(String::as_str).collect::<Vec<_>>(), ["dead-a", "dead-b"]);
    }
}
