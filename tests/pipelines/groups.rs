//! The group of a pipeline is the pipeline's while it runs, and anybody's to move when it does not.

use crate::lab::{Lab, Pipe, until_committed, until_state};
use anyhow::{Result, bail, ensure};
use pelton_tests::load::{client, create_topic};
use pelton_tests::records::{LIMIT, committed, produce, read_all, until};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use std::time::Duration;

const GROUP: &str = "pelton.p";

pub(crate) fn owned(lab: &Lab) -> Result<String> {
    let (_, broker, cli) = lab.start_with_plugin()?;
    let address = broker.address.clone();
    create_topic(&address, "in", 1, &[])?;
    lab.deploy(&cli, Pipe::new("p", "in", "out"))?;
    produce(&address, "in", 0, &["a", "b", "c"])?;
    until_committed(&cli, "p", &[3])?;

    let reset = |to| ["group", "reset-offsets", GROUP, "--topic", "in", "--to", to];
    let delete = ["group", "delete", GROUP];
    let in_use = ["`pelton.p`", "pelton pipeline pause p"];
    cli.refused(&reset("earliest"), 1, &in_use)?;
    cli.refused(&delete, 1, &in_use)?;
    strangers(&address)?;
    ensure!(
        committed(&address, GROUP, "in", 1)? == [3],
        "somebody moved the offsets of a pipeline that runs"
    );
    ensure!(cli.pipeline("p")?["state"] == "running", "it was disturbed");

    // Paused, failed, deleted: the offsets are where they are put, and the pipeline goes on from there.
    cli.ok(&["pipeline", "pause", "p"])?;
    cli.ok(&reset("earliest"))?;
    ensure!(committed(&address, GROUP, "in", 1)? == [0], "reset-offsets did nothing");
    cli.ok(&["pipeline", "resume", "p"])?;
    until_committed(&cli, "p", &[3])?;
    ensure!(read_all(&address, "out")?.len() == 6, "it did not process its input again");
    produce(&address, "in", 0, &["trap"])?;
    until_state(&cli, "p", "failed")?;
    cli.ok(&reset("latest"))?;
    cli.ok(&["pipeline", "resume", "p"])?;
    produce(&address, "in", 0, &["d"])?;
    until_committed(&cli, "p", &[5])?;
    cli.refused(&delete, 1, &in_use)?;
    cli.ok(&["pipeline", "delete", "p"])?;
    cli.ok(&reset("+0"))?;
    cli.ok(&delete)?;
    cli.refused(&["group", "describe", GROUP], 1, &["does not exist"])?;
    // Nothing is left of it: the next pipeline of the name begins as its manifest says.
    lab.deploy(&cli, Pipe { on_error: "{ policy = \"skip\" }", ..Pipe::new("p", "in", "out") })?;
    until_committed(&cli, "p", &[5])?;
    broker.stop()?;
    Ok("running, paused, failed and deleted".to_owned())
}

/// A client that commits to the group, and one that wants to be a member of it.
fn strangers(address: &str) -> Result<()> {
    let consumer: BaseConsumer = client(address).set("group.id", GROUP).create()?;
    let mut back = TopicPartitionList::new();
    back.add_partition_offset("in", 0, Offset::Offset(1))?;
    match consumer.commit(&back, CommitMode::Sync) {
        Err(KafkaError::ConsumerCommit(RDKafkaErrorCode::UnknownMemberId)) => {}
        other => bail!("a commit to the group of a pipeline that runs gives {other:?}"),
    }
    for group in [GROUP, "pelton.nobody"] {
        let member: BaseConsumer = client(address).set("group.id", group).create()?;
        member.subscribe(&["in"])?;
        until(&format!("{group} refuses members"), LIMIT, || {
            match member.poll(Duration::from_millis(100)) {
                Some(Err(KafkaError::MessageConsumption(RDKafkaErrorCode::InvalidGroupId))) => Ok(Some(())),
                Some(Ok(_)) => bail!("a member of {group} was given a record"),
                Some(Err(error)) => bail!("joining {group} gives {error:?}"),
                None => Ok(None),
            }
        })?;
    }
    Ok(())
}
