//! Time-outs and expiry beside a transactional id that nobody lets go of.

use std::sync::Arc;

use pelton_commitlog::storage::SimStorage;

use crate::core::{Core, EXPIRATION_MS};
use crate::{START_MS, in_a_life};
use pelton_coordinators::group::types::TopicPartition;
use pelton_coordinators::txn::origin::RequestKind;
use pelton_coordinators::txn::state::TxnState;
use pelton_partitions::clock::ManualClock;

const IDS: [&str; 3] = ["a", "b", "c"];
const SHORT_MS: i32 = 1_000;
const LONG_MS: i32 = 60_000;

fn states(core: &Core) -> Vec<(String, TxnState)> {
    core.transactions.list().iter().map(|txn| (txn.id.to_string(), txn.state)).collect()
}

/// What everybody comes to who does not wait for the disk, or for the id that is held.
async fn sweep(core: &Core, disk: &SimStorage) {
    core.transactions.sweep().await;
    core.finish(disk).await.unwrap();
}

#[test]
fn an_id_that_is_held_delays_no_other() {
    let (disk, clock) = (SimStorage::new(), Arc::new(ManualClock::new(START_MS)));
    in_a_life(async {
        let core = Core::start(&disk, &clock, 0).await.unwrap();
        core.create_topics(&disk).await.unwrap();
        let transactions = &core.transactions;
        for (id, timeout_ms) in IDS.into_iter().zip([SHORT_MS, SHORT_MS, LONG_MS]) {
            let transactions = transactions.clone();
            let begin = async move {
                let producer = transactions.init(id, None, timeout_ms, None).await.unwrap();
                let at = TopicPartition { topic: "a".into(), partition: 0 };
                transactions.add(id, producer, vec![at], (RequestKind::AddPartitions, None)).await.unwrap();
            };
            core.drive(&disk, begin).await.unwrap();
        }
        let expect = |core: &Core, expect: [TxnState; 3]| {
            let expect: Vec<_> = IDS.map(str::to_owned).into_iter().zip(expect).collect();
            assert_eq!(states(core), expect);
        };
        use TxnState::{CompleteAbort, Ongoing};
        sweep(&core, &disk).await;
        expect(&core, [Ongoing, Ongoing, Ongoing]);
        let held = transactions.lock("a").await.unwrap();
        clock.advance(SHORT_MS.into());
        sweep(&core, &disk).await;
        expect(&core, [Ongoing, CompleteAbort, Ongoing]);
        // What is listed and described waits for nobody either.
        assert_eq!(transactions.describe("a").unwrap().state, Ongoing);
        clock.advance((LONG_MS - SHORT_MS).into());
        sweep(&core, &disk).await;
        expect(&core, [Ongoing, CompleteAbort, CompleteAbort]);
        drop(held);
        core.finish(&disk).await.unwrap();
        expect(&core, [CompleteAbort, CompleteAbort, CompleteAbort]);

        let held = transactions.lock("a").await.unwrap();
        clock.advance(EXPIRATION_MS);
        sweep(&core, &disk).await;
        assert_eq!(states(&core), [("a".to_owned(), CompleteAbort)]);
        drop(held);
        core.finish(&disk).await.unwrap();
        assert_eq!(states(&core), []);
        let replayed = transactions.replayed().unwrap();
        assert!(replayed.is_empty(), "{replayed:?}");
    });
}
