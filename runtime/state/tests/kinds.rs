//! Where a store is can change from one revision of a pipeline to the next: what it has comes from its changelog.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use pelton_pipelines::sim::{Shared, drive_with, hasty, linked};
use pelton_pipelines::stores::{DirStores, TaskStores};
use pelton_state::{RocksFactory, StateMemory};
use pelton_streams::Topology;
use pelton_streams::state::{MemoryBudget, StateError};

fn counting(store: &str) -> Arc<Topology> {
    linked(&format!(
        "[[source]]\nid='in'\ntopic='in'\n\
         [[node]]\nid='m'\nfrom='in'\naggregate={{n='count',top='max:raw'}}\nstore='{store}'\n\
         [[node]]\nid='d'\nfrom='in'\ndeduplicate={{within='1h'}}\n\
         [[sink]]\nfrom='m'\ntopic='out'\n[[sink]]\nfrom='d'\ntopic='once'\n"
    ))
}

struct Rig {
    world: Shared,
    clock: Arc<AtomicI64>,
    stores: Arc<DirStores>,
}

impl Rig {
    fn new(dir: &tempfile::TempDir, bytes: u64) -> Rig {
        let memory = StateMemory { block_cache_bytes: 8 << 20, write_buffer_bytes: 8 << 20, threads: 2 };
        let stores = DirStores {
            factory: Arc::new(RocksFactory::new(memory)),
            dir: dir.path().to_owned(),
            memory: MemoryBudget::new(bytes),
            flush_interval_ms: 60_000,
        };
        let clock = Arc::new(AtomicI64::new(1_000_000));
        Rig { world: Shared::default(), clock, stores: Arc::new(stores) }
    }

    fn run(&self, store: &str, record: (&str, &str, i64)) -> Result<String, String> {
        self.world.lock().produce("in", 0, &[record]);
        let stores = Arc::clone(&self.stores) as Arc<dyn TaskStores>;
        let topology = counting(store);
        let ended = drive_with(hasty(), stores, &self.world, &topology, 1, &self.clock);
        ended.map_err(|error| error.to_string())?;
        Ok(self.world.lock().committed_records("out", 0).pop().unwrap())
    }
}

#[test]
fn a_store_that_moves_keeps_what_it_has() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(&dir, 1 << 20);
    let families = || {
        let task = dir.path().join("p").join("0-0");
        let mut names = rocksdb::DB::list_cf(&rocksdb::Options::default(), task).unwrap();
        names.sort();
        names
    };
    let mut time = 0;
    for (round, store) in ["rocksdb", "memory", "memory", "rocksdb", "memory"].into_iter().enumerate() {
        time += 1;
        let last = rig.run(store, ("a", &round.to_string(), time)).unwrap();
        assert_eq!(last, format!("a={{\"n\":{},\"top\":\"{round}\"}}@{time}", round + 1), "{store}");
        let mut expect = vec!["d", "default", "m"];
        expect.retain(|name| store == "rocksdb" || *name != "m");
        assert_eq!(families(), expect, "{store}");
    }
    assert_eq!(rig.world.lock().committed_records("once", 0).len(), 1, "what is beside it goes on too");
    assert_eq!(rig.stores.memory.used(), 0, "what has ended gives back its memory");
}

#[test]
fn what_does_not_fit_is_refused_and_goes_on_once_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(&dir, 400);
    rig.run("memory", ("a", "1", 1)).unwrap();
    let large = "x".repeat(300);
    let refused = rig.run("memory", ("b", &large, 2)).unwrap_err();
    let limit = StateError::Memory { limit: 400 }.to_string();
    assert_eq!(refused, format!("what partition 0 keeps cannot be used: {limit}"));
    // Its transaction was committed before the store had to take it over: it is there once.
    let last = rig.run("rocksdb", ("b", "1", 3)).unwrap();
    assert_eq!(last, format!("b={{\"n\":2,\"top\":\"{large}\"}}@3"));
}
