//! Pipelines: what is deployed, and the threads that run it.
//!
//! * [`deployments`] says what should run: a replay of a log of records.
//! * [`supervisor`] makes it so: it checks, stores and starts what is deployed.
//! * [`allowed`] says which components may run at all.
//! * [`compiler`] has the threads that compile plugins.
//! * [`runner`] has a pipeline's threads, [`driver`] is the loop on each of them, [`lanes`] says which of its tasks each runs,
//!   [`status`] what others can know of it.
//! * [`stores`] is where tasks keep what they keep, [`readers`] how others read it while they run, and `supervisor::asking`
//!   who asks for it.
//! * [`replay`] runs a revision over a range again, and compares.
//! * [`limits`] is what an operator says of a pipeline while it runs.
//! * [`logs`] takes what they say to where it is kept.
//! * [`io`] has the seams: what is read, what is written, and who commits; [`globals`] that to global tables.
//!
//! It refuses to know brokers, clients, wasmtime and RocksDB: the same driver runs over partitions of this process and, one
//! day, over those of a Kafka cluster.

#![allow(missing_docs, reason = "its users are the broker's packages; what a name does not say is said")]

pub mod allowed;
mod clock;
pub mod compiler;
mod cpu;
pub mod deployments;
mod driver;
pub mod globals;
pub mod io;
pub mod lanes;
pub mod limits;
pub mod logs;
pub mod readers;
pub mod refusal;
pub mod replay;
mod runner;
#[cfg(any(test, feature = "testing"))]
pub mod slow;
pub mod status;
pub mod stores;
pub mod supervisor;

pub use clock::Clock;
#[cfg(any(test, feature = "testing"))]
pub use driver::sim;

use pelton_streams::Digest;
use sha2::{Digest as _, Sha256};

/// The name of a component.
pub fn digest_of(component: &[u8]) -> Digest {
    Digest::new(Sha256::digest(component).into())
}

/// Runs `work` on a thread that may block; a panic goes on in the caller.
async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is being shut down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}
