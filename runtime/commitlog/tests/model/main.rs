//! Random operations on a log, compared with a vector of batches. A failing run prints its seed:
//! `MODEL_SEED=<seed> cargo test -p pelton-commitlog --test model` repeats it. `MODEL_RUNS=<n>` sets how many
//! seeds are tried, from `MODEL_FIRST` on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod batches;
mod catchup;
mod damage;
mod golden;
mod model;
mod rig;
mod sink;
mod steps;

use steps::run;

/// Steps of one run: enough for dozens of segments and several restarts.
const STEPS: usize = 400;

fn seeds(default: u64) -> Vec<u64> {
    match std::env::var("MODEL_SEED") {
        Ok(seed) => vec![seed.parse().expect("MODEL_SEED is a number")],
        Err(_) => {
            let count =
                std::env::var("MODEL_RUNS").map_or(default, |n| n.parse().expect("MODEL_RUNS is a number"));
            let first =
                std::env::var("MODEL_FIRST").map_or(0, |n| n.parse().expect("MODEL_FIRST is a number"));
            (first..first + count).collect()
        }
    }
}

#[test]
fn a_log_does_what_a_vector_does() {
    for seed in seeds(60) {
        let result = std::panic::catch_unwind(|| run(seed, STEPS));
        if let Err(panic) = result {
            eprintln!("failing seed: MODEL_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
