//! Random topologies over RocksDB: what each input triggers is what it triggers over memory, whatever happens in
//! between: commits, restarts, crashes that take what was not flushed.

use std::path::Path;

use pelton_state::{RocksState, StateMemory, StateOptions};
use pelton_streams::state::{MemoryState, StateBackend, StoreSpec};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use case::Case;
use crash::crashed;
use task::{Task, disturb};

#[path = "../../streams/tests/kafka_streams/case.rs"]
#[expect(dead_code, reason = "the comparison with Kafka Streams has the rest")]
mod case;
mod crash;
#[path = "../../streams/tests/kafka_streams/task.rs"]
mod task;
#[path = "../../streams/tests/kafka_streams/topology.rs"]
mod topology;
#[path = "../../streams/tests/kafka_streams/values.rs"]
mod values;

/// Opening a database takes some milliseconds for each store.
const CASES: u64 = 25;

fn rocks(dir: &Path, specs: &[StoreSpec], options: &StateOptions) -> Box<dyn StateBackend> {
    Box::new(RocksState::open(dir, specs, options).expect("the stores open"))
}

#[test]
fn outputs_are_those_over_memory() {
    let options = StateOptions::new(StateMemory {
        block_cache_bytes: 8 << 20,
        write_buffer_bytes: 8 << 20,
        threads: 2,
    });
    let (mut crashes, mut lossy) = (0, 0);
    for seed in 0..CASES {
        let directory = tempfile::tempdir().expect("a directory");
        let mut dir = directory.path().join("0");
        let case = Case::random(seed);
        let memory =
            &mut |specs: &[StoreSpec]| -> Box<dyn StateBackend> { Box::new(MemoryState::new(specs.len())) };
        let mut expected = Task::new(&case, 1 << 20, memory);
        let mut task = Task::new(&case, 300, &mut |specs| rocks(&dir, specs, &options));
        let mut random = SmallRng::seed_from_u64(seed);
        for (index, input) in case.inputs.iter().enumerate() {
            if random.random_range(0..10) == 0 {
                task.commit(random.random_range(0..2) == 0);
                dir = crashed(&dir, directory.path().join(format!("{}", index + 1)));
                let restored = task.restart(300, &mut |specs| rocks(&dir, specs, &options));
                (crashes, lossy) = (crashes + 1, lossy + u32::from(restored > 0));
            }
            disturb(&mut task, input, &mut random, &mut |specs| rocks(&dir, specs, &options));
            assert_eq!(task.input(input), expected.input(input), "seed {seed}, input {index} of {case:#?}");
        }
        assert_eq!(task.counts, expected.counts, "seed {seed} of {case:#?}");
    }
    assert!(lossy * 3 > crashes, "of {crashes} crashes {lossy} took something: these are none");
}
