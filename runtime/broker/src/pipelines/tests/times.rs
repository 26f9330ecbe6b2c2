//! When records have happened, over a whole broker.

use std::time::Duration;

use pelton_pipelines::supervisor::AskedOffset;

use super::*;

const LIMIT: Duration = Duration::from_secs(60);
const COUNTS: &str = "name = \"counts\"\n[[source]]\nid = \"s\"\ntopic = \"many\"\ntime = \"json:at\"\n\
    [[node]]\nid = \"n\"\nfrom = \"s\"\ngroup_by = \"json:c\"\nwindow = { tumbling = \"1m\" }\naggregate = \"count\"\n";
/// In the year 2100.
const LATER: i64 = 4_102_444_800_000;

/// A record without a time is left out whether or not there is a topic between, and one of the future is taken: if the first had
/// the time of its writing, all others would be late.
#[tokio::test(flavor = "multi_thread")]
async fn records_keep_their_time_through_a_topic_between() {
    let lab = Lab::start(&[]).await;
    let many = NewTopic { name: "many".to_owned(), partitions: 2, overrides: Overrides::new() };
    lab.handle.broker().topics.create(many, 1).await.unwrap();
    let deployed = lab.supervisor().deploy(COUNTS, &BTreeMap::new()).await.unwrap();
    assert_eq!(deployed.repartitions.len(), 1);
    let put = async |values: &[String]| {
        let record = |value: &String| InternalRecord { key: None, value: Some(Bytes::from(value.clone())) };
        let records: Vec<InternalRecord> = values.iter().map(record).collect();
        let topic = lab.handle.broker().topics.get("many").unwrap();
        let appended = topic.partition(0).unwrap().append_records(&records, 1).unwrap();
        appended.durable().await.unwrap()
    };
    let counted = async |offset, starts| {
        let wanted = [AskedOffset { topic: None, partition: Some(0), offset }];
        lab.supervisor().state_wait("counts/n", None, &wanted, LIMIT).await.unwrap();
        let found = lab.supervisor().state_windows("counts/n", b"x", starts, 10).unwrap();
        let rows = found.windows.rows.into_iter();
        let text = |value: Option<Vec<u8>>| String::from_utf8(value.unwrap()).unwrap();
        rows.map(|row| (row.window.unwrap().start, text(row.value))).collect::<Vec<_>>()
    };
    let of = |at: &str| format!("{{\"c\":\"x\"{at}}}");
    put(&[of(",\"at\":60005"), of(""), of(",\"at\":-7"), of(",\"at\":60006")]).await;
    assert_eq!(counted(3, 0..=i64::MAX).await, [(60_000, "2".to_owned())]);
    put(&[of(&format!(",\"at\":{LATER}"))]).await;
    assert_eq!(counted(4, LATER - 60_000..=i64::MAX).await, [(LATER, "1".to_owned())]);
    let status = lab.supervisor().pipeline("counts").unwrap().status;
    assert_eq!(status.dropped["n"].no_time, 2);
    lab.handle.shutdown().await.unwrap();
}
