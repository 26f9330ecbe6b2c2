//! What the cases share: a broker, records with keys, and what a replay of a topic gives.

use anyhow::{Context, Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::Cli;
use pelton_tests::http::request;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, read_all, until};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One case's place.
pub(crate) struct Lab {
    pub(crate) binary: PathBuf,
    pub(crate) dir: PathBuf,
}

/// The last value of each key.
pub(crate) type Rows = BTreeMap<String, String>;

impl Lab {
    pub(crate) fn log(&self) -> PathBuf {
        self.dir.join("broker.log")
    }

    pub(crate) fn start(&self) -> Result<(Start, Broker, Cli)> {
        let data = self.dir.join("data");
        // Written often, so that a kill finds files of many moments.
        let start = Start::new(&self.binary, &data, &self.log()).with_http();
        let mut start = start.set("pelton.state.flush.interval.ms", 200);
        let broker = start.start()?;
        let cli = self.cli(&broker)?;
        Ok((start, broker, cli))
    }

    pub(crate) fn cli(&self, broker: &Broker) -> Result<Cli> {
        Cli::new(&self.binary, broker, &self.dir.join("data"), &self.dir)
    }
}

pub(crate) fn compacted(broker: &Broker, topic: &str, partitions: u32) -> Result<()> {
    create_topic(&broker.address, topic, partitions, &[("cleanup.policy", "compact")])
}

/// Writes records as librdkafka places them, and waits until they are acknowledged. No value deletes.
pub(crate) fn put(bootstrap: &str, topic: &str, records: &[(&str, Option<&str>)]) -> Result<()> {
    let producer: BaseProducer = client(bootstrap).set("linger.ms", "5").create()?;
    for (key, value) in records {
        let record = BaseRecord::<str, str>::to(topic).key(key);
        let record = value.iter().fold(record, |record, value| record.payload(value));
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

/// What a replay of a topic gives up to offsets, by partition; all of it without. Values of tests are never empty: an
/// empty one is none.
pub(crate) fn replay(bootstrap: &str, topic: &str, offsets: Option<&BTreeMap<i32, i64>>) -> Result<Rows> {
    let mut rows = Rows::new();
    for read in read_all(bootstrap, topic)? {
        if offsets.is_some_and(|offsets| offsets.get(&read.partition).is_none_or(|last| read.offset > *last))
        {
            continue;
        }
        if read.value.is_empty() {
            rows.remove(&read.key);
        } else {
            rows.insert(read.key, read.value);
        }
    }
    Ok(rows)
}

/// All rows of a table of raw values by `pelton table scan`.
pub(crate) fn scan(cli: &Cli, table: &str) -> Result<Rows> {
    let text = cli.ok(&["table", "scan", table])?;
    let row = |line: &str| line.split_once('\t').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.lines().map(|line| row(line).with_context(|| format!("no row: {line}"))).collect()
}

/// One page of all rows with what it reflects; `None` while the table is restored.
pub(crate) fn page(http: &str, table: &str) -> Result<Option<(Rows, BTreeMap<i32, i64>)>> {
    let host = [format!("Host: {http}")];
    let answer = request(http, &format!("GET /v1/tables/{table}/records?limit=1000"), &host, None)?;
    if answer.status == 503 {
        return Ok(None);
    }
    let page = answer.json()?;
    ensure!(answer.status == 200 && page["next"].is_null(), "{} {page}", answer.status);
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let rows = page["records"].as_array().context("no records")?;
    let rows = rows.iter().map(|row| (text(row, "key"), text(row, "value"))).collect();
    let offsets = page["offsets"].as_object().context("no offsets")?;
    let offset = |(partition, offset): (&String, &Value)| Some((partition.parse().ok()?, offset.as_i64()?));
    Ok(Some((rows, offsets.iter().filter_map(offset).collect())))
}

/// Waits until a table is live and has everything that can be read, and gives its description.
pub(crate) fn until_fresh(cli: &Cli, table: &str) -> Result<Value> {
    let mut last = Value::Null;
    let found = until(&format!("table {table} is fresh"), LIMIT, || {
        last = cli.json(&["table", "describe", table, "--json"])?;
        let stores = last["stores"].as_array().into_iter().flatten();
        let behind = stores.flat_map(|store| store["partitions"].as_array().into_iter().flatten());
        let fresh = last["state"] == "live" && behind.into_iter().all(|partition| partition["behind"] == 0);
        Ok(fresh.then(|| last.clone()))
    });
    found.map_err(|error| error.context(format!("it is {last}")))
}

/// Waits until a table has the rows that a replay of its topic gives.
pub(crate) fn until_same(cli: &Cli, table: &str, expect: &Rows) -> Result<()> {
    let mut last = Rows::new();
    let same = until(&format!("table {table} has {} rows", expect.len()), LIMIT, || {
        let ended = cli.run(&["table", "scan", table])?;
        // It may still be restored.
        if ended.code == 0 {
            last = scan(cli, table)?;
        }
        Ok((last == *expect).then_some(()))
    });
    same.map_err(|error| error.context(format!("it has {last:?}, not {expect:?}")))
}
