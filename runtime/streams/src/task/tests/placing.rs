//! Records that a plugin places.

use super::*;
use crate::plugin::{PartitionerPlugin, checked_partitions};

/// The partition of a record is the last digit of its value, of which there may be none; `late?` is late the first time.
/// It notes what it is given.
struct Digits {
    given: Arc<Mutex<Vec<String>>>,
    was_late: bool,
}

impl PartitionerPlugin for Digits {
    fn partition(&mut self, batch: &BatchIn<'_>, _: u32) -> Result<Vec<u32>, PluginError> {
        let text =
            |record: RecordIn<'_>| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        let values: Vec<String> = batch.records().map(text).collect();
        self.given.lock().expect("not poisoned").push(values.join(" "));
        if values.iter().any(|value| value.starts_with("late?")) && !self.was_late {
            self.was_late = true;
            return Err(PluginError::Deadline { deadline_ms: 5 });
        }
        if values.iter().any(|value| value == "fatal") {
            return Err(PluginError::ServerMemory { limit_bytes: 1 });
        }
        let digit = |value: &String| value.chars().last().and_then(|last| last.to_digit(10));
        Ok(values.iter().filter_map(digit).collect())
    }
}

/// Sinks of a source, or of a node, with a plugin as their partitioner, over topics of four partitions.
fn placing(rest: &str) -> (TopologyDriver, Arc<Mutex<Vec<String>>>) {
    let manifest = format!("name='p'\n[[source]]\nid='in'\ntopic='in'\n{rest}");
    let manifest = Manifest::parse(&manifest).expect("is valid");
    let info = |id: &str| {
        let world = if id.starts_with("sink ") { World::Partitioner } else { World::Transform };
        let text = format!("name='p'\nversion='1'\nworld='{world}'\noutputs=['main','late']");
        let manifest = Some(PluginManifest::parse(&text).expect("is valid"));
        PluginInfo { digest: Digest::new([1; 32]), world, manifest, bytes: 1 }
    };
    let plugins = manifest.plugins().map(|(id, _)| (id.clone(), info(&id))).collect();
    let topology = Topology::link(&manifest, &plugins).expect("fits");
    let given = Arc::new(Mutex::new(Vec::new()));
    let outputs: Vec<usize> = topology.partitioners().map(|(output, ..)| output).collect();
    let calls = Arc::default();
    let node = (!topology.nodes.is_empty())
        .then(|| ("n", Box::new(Script { calls, was_late: false }) as Box<dyn Plugin>));
    let mut driver = TopologyDriver::new(topology, node.into_iter().collect(), 4);
    for output in outputs {
        driver
            .plugins
            .set_partitioner(output, Box::new(Digits { given: Arc::clone(&given), was_late: false }));
    }
    (driver, given)
}

fn places(out: &[TestOutput]) -> Vec<String> {
    let text = |o: &TestOutput| {
        let value = o.record.value.as_deref().unwrap_or_default();
        format!("{} {} {}", o.topic, o.partition, String::from_utf8_lossy(value))
    };
    out.iter().map(text).collect()
}

const SINK: &str = "[[sink]]\nfrom='in'\ntopic='out'\npartitioner='./p'\n";

#[test]
fn each_record_goes_where_the_plugin_says() {
    let (mut driver, given) = placing(SINK);
    let out = driver.pipe(&["a3", "b0", "c2", "d3"].map(TestRecord::value)).expect("is passed");
    assert_eq!(places(&out), ["out 3 a3", "out 0 b0", "out 2 c2", "out 3 d3"]);
    assert_eq!(*given.lock().expect("not poisoned"), ["a3 b0 c2 d3"], "one call for all");
}

/// What a node emits on one of its outputs is what the partitioner of that output's topic is given.
#[test]
fn a_partitioner_is_given_what_goes_to_its_topic() {
    let (mut driver, given) = placing(
        "[[node]]\nid='n'\nfrom='in'\nplugin='p'\n[[sink]]\nfrom='n'\ntopic='out'\npartitioner='./p'\n\
         [[sink]]\nfrom='n:late'\ntopic='late'",
    );
    let out = driver.pipe(&["1", "drop", ">late", "3", "2"].map(TestRecord::value)).expect("is passed");
    let to_out: Vec<String> = places(&out).into_iter().filter(|place| place.starts_with("out")).collect();
    assert_eq!(to_out, ["out 1 1", "out 3 3", "out 2 2", "out 2 2"]);
    assert_eq!(out.iter().filter(|o| o.topic == "late").count(), 1);
    assert_eq!(*given.lock().expect("not poisoned"), ["1 3 2 2"]);
}

#[test]
fn what_has_no_partition_goes_by_the_policy() {
    for (bad, why) in
        [("b7", "it names partition 7 for record 0, but the topic has 4"), ("bad", "it names 0 partitions")]
    {
        let values = ["a3", bad, "c2"].map(TestRecord::value);
        let (mut driver, _) = placing(&format!("{SINK}on_error={{policy='skip'}}"));
        assert_eq!(places(&driver.pipe(&values).expect("is passed")), ["out 3 a3", "out 2 c2"]);
        let [notice] = &driver.notices[..] else { panic!("{:?}", driver.notices) };
        assert_eq!((notice.kind.clone(), notice.failure.offset), (NoticeKind::Skipped, 1));
        assert!(notice.failure.to_string().contains(why), "{}", notice.failure);
        let (mut driver, _) = placing(SINK);
        let Err(StepError::Failed(failure)) = driver.pipe(&values) else { panic!("is passed") };
        assert_eq!((failure.node.as_str(), failure.offset), ("sink out", 1));
        let (mut driver, _) = placing(&format!("{SINK}on_error={{policy='dead-letter',topic='dead'}}"));
        let out = driver.pipe(&values).expect("is passed");
        assert_eq!(out.iter().map(|o| (o.topic.as_str(), o.source_offset)).collect::<Vec<_>>(), {
            [("out", 0), ("out", 2), ("dead", 1)]
        });
    }
}

/// A machine that is busy makes a call late: the record is not to blame.
#[test]
fn a_record_that_is_late_once_is_placed() {
    let (mut driver, _) = placing(&format!("{SINK}on_error={{policy='skip'}}"));
    let out = driver.pipe(&["late?1"].map(TestRecord::value)).expect("is passed");
    assert_eq!(places(&out), ["out 1 late?1"]);
    assert!(driver.notices.is_empty());
    // Nor is it if all plugins together have no memory left.
    let Err(StepError::Failed(failure)) = driver.pipe(&["fatal"].map(TestRecord::value)) else {
        panic!("is passed")
    };
    assert!(failure.to_string().contains("the partitioner of topic out"), "{failure}");
}

#[test]
fn partitions_are_those_that_are_there() {
    assert_eq!(checked_partitions(&[0, 3, 1], 3, 4), Ok(vec![0, 3, 1]));
    assert_eq!(checked_partitions(&[], 0, 4), Ok(Vec::new()));
    for (answer, records) in [(&[4_u32][..], 1), (&[u32::MAX], 1), (&[0, 1], 1), (&[], 1)] {
        let refused = checked_partitions(answer, records, 4);
        assert!(matches!(refused, Err(PluginError::IllFormed { .. })), "{answer:?}");
    }
}
