//! Routers: pipelines that move what clients write to a topic with `pelton.partitioner` from its intake to where the
//! partitioner says. There is one for each such topic, made from the topic's settings alone; who creates, changes, grows or
//! deletes the topic has its router follow.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pelton_partitions::intake::{beside, intake_of, places_of, places_settings};
use pelton_pipelines::refusal::DeployError;
use pelton_pipelines::supervisor::{ROUTER_PREFIX, Supervisor};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::clock::Clock;
use crate::topic_config::{OnError, TopicPartitioner};
use crate::topics::{Topic, Topics};

/// How often topics are looked at for changes.
const LOOK: Duration = Duration::from_millis(50);
/// How long a router that was refused waits for the next try.
const AGAIN: Duration = Duration::from_secs(5);
/// A pipeline's name has at most so many characters.
const NAME_MAX: usize = 64;

/// The name of a topic's router.
pub(crate) fn router_of(topic: &str, id: Uuid) -> String {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    if topic.chars().all(plain) && ROUTER_PREFIX.len() + topic.len() <= NAME_MAX {
        format!("{ROUTER_PREFIX}{topic}")
    } else {
        format!("{ROUTER_PREFIX}{}", id.simple())
    }
}

/// The pipeline that routes a topic with so many partitions.
pub(crate) fn manifest_of(
    (topic, id, partitions): (&str, Uuid, i32),
    partitioner: &TopicPartitioner,
) -> String {
    let (name, intake) = (router_of(topic, id), intake_of(id));
    let on_error = match &partitioner.on_error {
        OnError::Fail => r#"{ policy = "fail" }"#.to_owned(),
        OnError::Skip => r#"{ policy = "skip" }"#.to_owned(),
        OnError::DeadLetter(topic) => format!(r#"{{ policy = "dead-letter", topic = "{topic}" }}"#),
    };
    let config = match partitioner.config.as_str() {
        "" => String::new(),
        table => format!("config = {table}\n"),
    };
    let partitioner = &partitioner.name;
    format!(
        "# Made from the settings of topic {topic}: change those.\n\
         name = \"{name}\"\n\
         guarantee = \"exactly-once\"\n\
         commit = {{ interval_ms = 10 }}\n\n\
         [[source]]\n\
         id = \"intake\"\n\
         topic = \"{intake}\"\n\
         intake = {partitions}\n\n\
         [[sink]]\n\
         from = \"intake\"\n\
         topic = \"{topic}\"\n\
         partitioner = \"{partitioner}\"\n\
         {config}on_error = {on_error}\n"
    )
}

/// The manifest of the router that a topic should have.
fn wanted(topics: &Topics, topic: &Topic) -> Option<(String, String)> {
    let partitioner = topic.config.partitioner.as_ref()?;
    // Its partitions, which are there before those of the topic.
    let intake = topics.intake(topic).ok()??;
    let of = (topic.name.as_str(), topic.id, intake.partition_count);
    Some((router_of(&topic.name, topic.id), manifest_of(of, partitioner)))
}

/// Has every topic with a partitioner routed, until the broker stops.
pub(crate) async fn keep(
    topics: Arc<Topics>,
    supervisor: Arc<Supervisor>,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    let mut seen = None;
    let mut refused = false;
    let mut again = tokio::time::Instant::now();
    loop {
        let now = topics.changes();
        if seen != Some(now) || (refused && again.elapsed() >= AGAIN) {
            refused = !follow(&topics, &supervisor, clock.now_ms()).await;
            (seen, again) = (Some(now), tokio::time::Instant::now());
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Whether everything that there should be is there.
async fn follow(topics: &Arc<Topics>, supervisor: &Arc<Supervisor>, now_ms: i64) -> bool {
    let all = topics.list();
    let wanted: BTreeMap<String, String> = all.iter().filter_map(|topic| wanted(topics, topic)).collect();
    let mut whole = true;
    let routed = all.iter().filter(|topic| topic.config.partitioner.is_some());
    for topic in routed.filter(|topic| topics.get(&places_of(topic.id)).is_none()) {
        let made = topics.ensure_internal(&places_of(topic.id), 1, places_settings(), now_ms).await;
        if let Err(error) = made {
            whole = false;
            tracing::error!(topic = topic.name, %error, "the records of a topic are not routed; trying again");
        }
    }
    for (name, manifest) in &wanted {
        if supervisor.manifest(name).as_ref() == Some(manifest) {
            continue;
        }
        match supervisor.deploy_router(manifest).await {
            Ok(_) => tracing::info!(router = name, "a topic's records are routed by its partitioner"),
            Err(DeployError::Stopping) => {}
            Err(error) => {
                whole = false;
                tracing::error!(router = name, %error, "the records of a topic are not routed; trying again");
            }
        }
    }
    for name in supervisor.routers() {
        if !wanted.contains_key(&name)
            && let Err(error) = supervisor.delete_router(&name).await
        {
            whole = false;
            tracing::warn!(router = name, %error, "the router of a topic that was deleted stays for now");
        }
    }
    for orphan in &all {
        let Some(owner) = beside(&orphan.name) else { continue };
        // Of a creation, or a deletion, that a crash has cut off. Another one may be under way: it ends with both, or neither.
        if topics.by_id(owner).is_none()
            && let Err(error) = topics.delete_orphan(orphan.id).await
        {
            whole = false;
            tracing::warn!(topic = orphan.name, %error, "a topic beside one that is gone stays for now");
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use pelton_streams::Manifest;

    use super::*;

    fn partitioner(name: &str, config: &str, on_error: OnError) -> TopicPartitioner {
        TopicPartitioner { name: name.to_owned(), config: config.to_owned(), on_error, intake_max_bytes: 1 }
    }

    #[test]
    fn a_router_is_a_pipeline_that_reads_every_partition_of_the_intake() {
        let id = Uuid::from_u128(7);
        let by_plugin =
            partitioner("region@sha256:00", "{ default = 2 }", OnError::DeadLetter("lost".to_owned()));
        for (topic, name, by) in [
            ("flights", "partitioner.flights", partitioner("murmur2", "", OnError::Fail)),
            (
                "Flights",
                "partitioner.00000000000000000000000000000007",
                partitioner("crc32", "", OnError::Skip),
            ),
        ] {
            let manifest = Manifest::parse(&manifest_of((topic, id, 3), &by)).unwrap();
            assert_eq!((manifest.name.as_str(), manifest.is_router()), (name, true));
            assert_eq!(manifest.sources[0].intake, Some(3));
            assert_eq!(manifest.sources[0].topic, intake_of(id));
            assert_eq!(manifest.sinks[0].topic, topic);
        }
        let text = manifest_of(("flights", id, 3), &by_plugin).replace("@sha256:00", "");
        let sink = &Manifest::parse(&text).unwrap().sinks[0];
        assert_eq!(sink.plugin().unwrap().config["default"].as_integer(), Some(2));
        assert_eq!(sink.on_error.as_ref().unwrap().dead_letter_topic(), Some("lost"));
    }
}
