//! A directory that an earlier pelton wrote is taken up: topics, groups, transactional ids and a pipeline go on.
//!
//! `stopped.tar.gz` and `killed.tar.gz` were written by the state of 20 November 2026 (the first that had exactly-once
//! pipelines whole), which ended with SIGTERM and with `kill -9`. They are not written again: `-- write DIRECTORY` makes such
//! a pair with whatever $PELTON_BIN is, for the day when another state is worth keeping.

use anyhow::{Context, Result, ensure};
use pelton_tests::broker::{Broker, Start};
use pelton_tests::cli::Cli;
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, committed, produce, read_from, until};
use pelton_tests::{end, guest, say, settings};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::path::Path;
use std::process::{Command, ExitCode};

const ENDS: [&str; 2] = ["stopped", "killed"];
const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];
const PARTITIONS: i32 = 2;
/// Of a batch.
const RECORDS: usize = 40;
/// Where the group `readers` is in each partition of `kept`: by itself, and by a transaction.
const READ: [i64; 2] = [70, 11];
const MANIFEST: &str = "\
name = \"older\"
guarantee = \"exactly-once\"

[[source]]
id = \"in\"
topic = \"kept\"

[[node]]
id = \"work\"
from = \"in\"
plugin = \"unruly\"
config = { tag = \"!\" }
limits = { memory = \"8 MiB\", deadline_ms = 5000, output = \"512 KiB\" }

[[sink]]
from = \"work\"
topic = \"made\"
";

fn main() -> ExitCode {
    end(run())
}

fn run() -> Result<()> {
    let binary = settings::binary()?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [word, to] = &arguments[..]
        && word == "write"
    {
        return ENDS.iter().try_for_each(|ending| write(&binary, Path::new(to), ending));
    }
    for ending in ENDS {
        let home = tempfile::tempdir()?;
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("older/{ending}.tar.gz"));
        tar(&["-xzf".as_ref(), fixture.as_os_str(), "-C".as_ref(), home.path().as_os_str()])?;
        let log = home.path().join("broker.log");
        check(&binary, home.path())
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())
            .with_context(|| format!("the directory of an earlier pelton that was {ending}"))?;
        say(format_args!("ok a directory of an earlier pelton that was {ending}"));
    }
    Ok(())
}

fn tar(arguments: &[&std::ffi::OsStr]) -> Result<()> {
    let status = Command::new("tar").args(arguments).status().context("run tar")?;
    ensure!(status.success(), "tar ended with {status}");
    Ok(())
}

fn start(binary: &Path, home: &Path) -> Result<(Broker, Cli)> {
    let data = home.join("data");
    // Where the earlier one listened does not matter; an earlier one need not know every setting of `Start::new`.
    let broker = Start::new(binary, &data, &home.join("broker.log")).with_http().start()?;
    let cli = Cli::new(binary, &broker, &data, &home.join("build"))?;
    Ok((broker, cli))
}

/// The values of a partition of `kept`, batch by batch.
fn kept(partition: i32) -> Vec<Vec<String>> {
    let batch = |codec: &&str| (0..RECORDS).map(|n| format!("{partition} {codec} {n}")).collect();
    CODECS.iter().map(batch).collect()
}

/// What the pipeline makes of the records of a partition.
fn made(partition: i32, values: &[String]) -> Vec<String> {
    values.iter().enumerate().map(|(offset, value)| format!("{partition}:{offset}:{value}!")).collect()
}

fn mover(bootstrap: &str) -> Result<BaseProducer> {
    let producer: BaseProducer = client(bootstrap).set("transactional.id", "mover").create()?;
    producer.init_transactions(LIMIT)?;
    Ok(producer)
}

fn send(producer: &BaseProducer, values: &[&str]) -> Result<()> {
    for value in values {
        let record = BaseRecord::<(), [u8]>::to("moved").partition(0).payload(value.as_bytes());
        producer.send(record).map_err(|(error, _)| error)?;
    }
    producer.flush(LIMIT).context("flush")
}

fn position(partition: usize) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset("kept", i32::try_from(partition)?, Offset::Offset(READ[partition]))?;
    Ok(list)
}

fn write(binary: &Path, to: &Path, ending: &str) -> Result<()> {
    let home = tempfile::tempdir()?;
    let (broker, cli) = start(binary, home.path())?;
    let bootstrap = broker.address.clone();
    create_topic(&bootstrap, "kept", PARTITIONS.unsigned_abs(), &[("segment.bytes", "4096")])?;
    create_topic(&bootstrap, "moved", 1, &[])?;
    create_topic(&bootstrap, "made", 1, &[])?;
    for partition in 0..PARTITIONS {
        for (values, codec) in kept(partition).iter().zip(CODECS) {
            let producer: BaseProducer =
                client(&bootstrap).set("compression.type", codec).set("linger.ms", "20").create()?;
            for value in values {
                let record =
                    BaseRecord::<(), [u8]>::to("kept").partition(partition).payload(value.as_bytes());
                producer.send(record).map_err(|(error, _)| error)?;
            }
            producer.flush(LIMIT)?;
        }
    }
    let consumer: BaseConsumer = client(&bootstrap).set("group.id", "readers").create()?;
    consumer.commit(&position(0)?, CommitMode::Sync)?;
    let producer = mover(&bootstrap)?;
    producer.begin_transaction()?;
    send(&producer, &["a", "b"])?;
    let group = consumer.group_metadata().context("no group metadata")?;
    producer.send_offsets_to_transaction(&position(1)?, &group, LIMIT)?;
    producer.commit_transaction(LIMIT)?;
    producer.begin_transaction()?;
    send(&producer, &["never"])?;
    producer.abort_transaction(LIMIT)?;
    let component = guest::build(binary, "unruly", &home.path().join("build"), home.path())?;
    cli.ok(&["plugin", "push", &component.display().to_string()])?;
    let manifest = home.path().join("older.toml");
    std::fs::write(&manifest, MANIFEST)?;
    cli.ok(&["deploy", &manifest.display().to_string()])?;
    let ends = vec![(CODECS.len() * RECORDS) as i64; PARTITIONS as usize];
    until("the pipeline has passed all on", LIMIT, || {
        Ok((committed(&bootstrap, "pelton.older", "kept", PARTITIONS.unsigned_abs())? == ends).then_some(()))
    })?;
    // Open when the broker ends.
    producer.begin_transaction()?;
    send(&producer, &["nor this"])?;
    if ending == "killed" {
        broker.kill()?
    } else {
        broker.stop().map(drop)?
    }
    drop(producer);
    std::fs::create_dir_all(to)?;
    let file = to.join(format!("{ending}.tar.gz"));
    std::fs::remove_file(home.path().join("data/http.token"))?;
    tar(&["-czf".as_ref(), file.as_os_str(), "-C".as_ref(), home.path().as_os_str(), "data".as_ref()])?;
    say(format_args!("wrote {}", file.display()));
    Ok(())
}

/// The values of a partition of a topic, in order.
fn values(bootstrap: &str, topic: &str, partition: i32) -> Result<Vec<String>> {
    let read = read_from(bootstrap, topic, &mut Vec::new())?;
    Ok(read.into_iter().filter(|record| record.partition == partition).map(|record| record.value).collect())
}

fn check(binary: &Path, home: &Path) -> Result<()> {
    let (broker, _) = start(binary, home)?;
    let bootstrap = broker.address.as_str();
    ensure!(
        committed(bootstrap, "readers", "kept", PARTITIONS.unsigned_abs())? == READ,
        "where the group was"
    );
    let producer = mover(bootstrap)?;
    ensure!(values(bootstrap, "moved", 0)? == ["a", "b"], "what was committed before");
    producer.begin_transaction()?;
    send(&producer, &["c"])?;
    producer.commit_transaction(LIMIT)?;
    ensure!(values(bootstrap, "moved", 0)? == ["a", "b", "c"], "what is committed in all");
    let mut expected = Vec::new();
    for partition in 0..PARTITIONS {
        let mut all = kept(partition).concat();
        ensure!(values(bootstrap, "kept", partition)? == all, "records of partition {partition}");
        produce(bootstrap, "kept", partition, &["new"])?;
        all.push("new".to_owned());
        expected.extend(made(partition, &all));
    }
    expected.sort_unstable();
    until("the pipeline has passed on what is new", LIMIT, || {
        let mut read = values(bootstrap, "made", 0)?;
        read.sort_unstable();
        ensure!(read.len() <= expected.len(), "it has made {} records of {}", read.len(), expected.len());
        Ok((read == expected).then_some(()))
    })?;
    broker.stop().map(drop)
}
