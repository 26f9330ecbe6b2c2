//! The partitions of an intake: sources of one task, whose records are taken in the order of their offsets.

use super::*;

fn router(on_error: &str) -> Arc<Topology> {
    let manifest = format!(
        "name='partitioner.t'\n[[source]]\nid='intake'\ntopic='__pelton_intake_0'\nintake=3\n\
         [[sink]]\nfrom='intake'\ntopic='t'\npartitioner='round-robin'\non_error={on_error}"
    );
    Arc::new(topology(&manifest))
}

/// Takes values in the order in which they come, but for `big` ones.
#[derive(Default)]
struct Taken(Vec<String>);

impl Sink for Taken {
    fn write(&mut self, records: Emissions<'_>) -> Result<(), Vec<Refused>> {
        let text =
            |record: RecordIn<'_>| String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        let values: Vec<String> = records.iter().map(|emitted| text(emitted.record)).collect();
        let big = values.iter().enumerate().filter(|(_, value)| value.starts_with("big"));
        let refused = big
            .map(|(index, _)| Refused { index, why: Refusal::TooLarge { bytes: 3, codec: "none", max: 2 } });
        let refused: Vec<Refused> = refused.collect();
        if !refused.is_empty() {
            return Err(refused);
        }
        self.0.extend(values);
        Ok(())
    }
}

/// `partition: offset=value ...`, one a source.
fn batch(partition: u32, records: &str) -> OwnedBatch {
    let mut batch = OwnedBatch::new("__pelton_intake_0", partition);
    for record in records.split_whitespace() {
        let (offset, value) = record.split_once('=').expect("offset=value");
        let offset = offset.parse().expect("a number");
        let record = RecordIn {
            offset,
            timestamp: -offset,
            key: None,
            value: Some(value.as_bytes()),
            headers: Headers::default(),
        };
        batch.push(record, std::iter::empty()).expect("is small");
    }
    batch
}

fn step(task: &mut Task, sink: &mut Taken, records: [&str; 3]) -> Result<StepOutput, StepError> {
    let batches = [0, 1, 2].map(|n| batch(n as u32, records[n]));
    let inputs = [0, 1, 2].map(|source| TaskInput {
        source,
        batch: batches[source].as_batch(),
        end_offset: 100,
        more: false,
    });
    let given: Vec<TaskInput<'_>> = inputs.into_iter().filter(|input| !input.batch.is_empty()).collect();
    let mut plugins = Plugins::default();
    let mut outside = Outside { plugins: &mut plugins, sink, globals: &NoTables, interrupted: &|| false };
    task.process(&given, &mut outside)
}

fn task(on_error: &str) -> Task {
    Task::new(TaskId { sub_topology: 0, partition: 0 }, router(on_error), &[3])
}

#[test]
fn an_intake_is_one_task_with_a_source_for_each_partition() {
    let topology = router("{policy='fail'}");
    assert_eq!(
        topology.sources.iter().map(|source| source.only).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
    assert_eq!(topology.sub_topologies.len(), 1);
    assert!(topology.sub_topologies[0].by_offset && topology.sub_topologies[0].graph.is_none());
    assert!(topology.takes(1, 1) && !topology.takes(1, 2));
    assert_eq!(topology.task_of(2, 2), TaskId { sub_topology: 0, partition: 0 });
}

#[test]
fn records_are_routed_in_the_order_of_their_offsets() {
    let (mut task, mut sink) = (task("{policy='fail'}"), Taken::default());
    let StepOutput { mut positions, .. } =
        step(&mut task, &mut sink, ["0=a 1=b 7=h", "2=c 5=f 6=g", "4=e"]).expect("is passed");
    positions.sort_unstable();
    assert_eq!(sink.0.join(""), "abcefgh");
    assert_eq!(positions, [(0, 100), (1, 100), (2, 100)]);
}

/// A record that cannot be placed is named with the partition that its client chose, and nothing behind it is routed.
#[test]
fn a_router_stops_before_what_cannot_be_placed() {
    let (mut task, mut sink) = (task("{policy='fail'}"), Taken::default());
    let records = ["0=a 8=z", "2=c 5=big 6=g", "4=e"];
    let StepOutput { mut positions, .. } = step(&mut task, &mut sink, records).expect("some is passed");
    positions.sort_unstable();
    assert_eq!(sink.0.join(""), "ace");
    assert_eq!(positions, [(0, 8), (1, 5), (2, 100)]);
    let Err(StepError::Failed(failure)) = step(&mut task, &mut sink, ["8=z", "5=big 6=g", ""]) else {
        panic!("it is passed")
    };
    assert_eq!((failure.partition, failure.offset), (1, 5));
    let (mut task, mut sink) = (self::task("{policy='skip'}"), Taken::default());
    let StepOutput { notices, .. } = step(&mut task, &mut sink, records).expect("is passed");
    assert_eq!(sink.0.join(""), "acegz");
    let [notice] = &notices[..] else { panic!("{notices:?}") };
    assert_eq!((notice.failure.partition, notice.failure.offset), (1, 5));
}

#[test]
fn only_intakes_are_read_so() {
    let refused = |source: &str| {
        let text = format!("name='p'\n[[source]]\nid='in'\n{source}\n[[sink]]\nfrom='in'\ntopic='t'");
        Manifest::parse(&text).expect_err("is refused").to_string()
    };
    assert!(refused("topic='flights'\nintake=3").contains("no intake of a topic"));
    assert!(refused("topic='__pelton_intake_0'\nintake=0").contains("source[0].intake"));
    assert!(refused("topic='__pelton_intake_0'").contains("a topic of the server's own"));
}
