//! Where a router says that it has put what clients wrote.

use pelton_partitions::intake::places_of;
use pelton_wire::record::{BatchBuilder, BatchOptions};

use super::*;
use crate::pipelines::{Whereabouts, find_place};
use crate::topic_config::Durability;

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_says_where_its_record_is() {
    const ROUNDS: i64 = 15;
    let disk = SimStorage::new();
    disk.set_room_max(Some(8 << 10));
    let lab = Lab::start(&disk).await;
    let topics = &lab.broker().topics;
    let overrides =
        [("pelton.partitioner", "murmur2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let new = NewTopic { name: "routed".to_owned(), partitions: 3, overrides: overrides.into() };
    let topic = topics.create(new, 1).await.unwrap();
    let intake = topics.intake(&topic).unwrap().unwrap();
    until(|| topics.get(&places_of(topic.id)).is_some()).await;
    let places = topics.get(&places_of(topic.id)).unwrap();
    let routed = || {
        let all = topic.local.iter().flat_map(|partition| {
            let here = committed_in(partition).into_iter();
            here.map(|(offset, value)| (value, (partition.index(), offset)))
        });
        all.collect::<BTreeMap<String, (i32, i64)>>()
    };
    let mut tickets = Vec::new();
    for round in 0..ROUNDS {
        if round == 4 {
            // What was written before that in the transaction is aborted, and comes again at other offsets.
            let log = format!("/{}-0/00000000000000000000.log", places.name);
            disk.fail_after(Some(Call::Reserve), &log, 0, ErrorKind::StorageFull);
        }
        for partition in &intake.local {
            let value = format!("{round} by {}", partition.index());
            let mut batch = BatchBuilder::new(BatchOptions::default());
            batch.append(now_ms(), Some(value.as_bytes()), Some(value.as_bytes()), &[]).unwrap();
            let (batch, room) = (batch.build().unwrap(), partition.room(1000).await.unwrap());
            let appended = partition.append_client(batch, &room, now_ms(), Durability::Group, None).unwrap();
            tickets.push((partition.index(), appended.base_offset, value));
        }
        if round % 3 == 2 {
            // A transaction of the router ends here, at the latest.
            let started = Instant::now();
            while routed().len() < tickets.len() {
                let pipelines = lab.broker().supervisor().unwrap().pipelines();
                let states: Vec<_> =
                    pipelines.iter().map(|one| (&one.status.state, &one.status.failure)).collect();
                assert!(started.elapsed() < PATIENCE, "round {round}: {:?}; {states:?}", routed());
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            disk.clear_faults();
        }
    }
    let routed = routed();
    let places = &places.local[0];
    assert!(
        places.offsets().last_stable > 2 * ROUNDS / 3,
        "the rig: there are several notes to look through"
    );
    for (partition, ticket, value) in &tickets {
        let (at, offset) = routed[value];
        let found = find_place(places, *partition, *ticket).ok();
        assert_eq!(found, Some(Whereabouts::At(at, offset)), "{value}");
    }
    let (partition, last, _) = tickets[tickets.len() - 1];
    assert_eq!(
        find_place(places, partition, last + 1).ok(),
        Some(Whereabouts::Nowhere),
        "nobody has that ticket"
    );
    lab.handle.shutdown().await.unwrap();
}
