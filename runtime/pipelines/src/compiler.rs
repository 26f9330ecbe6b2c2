//! Compiles components on threads of their own. A large one takes many seconds, and a compilation cannot be interrupted: so
//! only so many run at once, nobody waits longer than a bound, and one that takes longer goes on without anybody waiting;
//! what it gives is in the factory's cache when somebody asks again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pelton_streams::{Digest, LoadError, PluginFactory, PluginInfo};
use tokio::sync::{Semaphore, oneshot};

/// How many compilations there may be, and how long somebody waits for one.
#[derive(Debug, Clone, Copy)]
pub struct CompileLimits {
    /// `pelton.plugin.compile.max`.
    pub at_once: usize,
    /// `pelton.plugin.compile.wait.ms`: for others to end.
    pub wait: Duration,
    /// `pelton.plugin.compile.timeout.ms`: for the compilation itself.
    pub timeout: Duration,
}

/// How long the caller waits for a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// A user: refused after the limits of the settings.
    Bounded,
    /// The start of the broker: deployed pipelines come back, however long an upgrade makes their plugins compile.
    Endless,
}

/// Why a component is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("the component cannot be used: {0}")]
    Refused(#[from] LoadError),
    #[error(
        "other components are being compiled, and none was done within {waited_ms} ms (`pelton.plugin.compile.wait.ms`); try \
         again in a while, or raise `pelton.plugin.compile.max`"
    )]
    Busy { waited_ms: u128 },
    #[error(
        "compiling the component takes longer than {timeout_ms} ms (`pelton.plugin.compile.timeout.ms`); it goes on and its \
         result is kept, so try again in a while"
    )]
    TimedOut { timeout_ms: u128 },
    #[error("the compiler panicked over this component; the server's log says where")]
    Panicked,
    #[error("the thread that compiles does not start: {0}; try again when the machine is less busy")]
    NoThread(std::io::Error),
    #[error("the server is stopping")]
    Stopping,
}

/// Loads components.
pub(super) struct Compiler {
    factory: Arc<dyn PluginFactory>,
    limits: CompileLimits,
    /// One permit for each compilation, held until its thread ends.
    permits: Arc<Semaphore>,
}

impl Compiler {
    pub(super) fn new(factory: Arc<dyn PluginFactory>, limits: CompileLimits) -> Compiler {
        let permits = Arc::new(Semaphore::new(limits.at_once.min(Semaphore::MAX_PERMITS)));
        Compiler { factory, limits, permits }
    }

    /// Loads a component: at once if it was compiled before, else when there is room for another compilation.
    pub(super) async fn load(
        &self,
        digest: Digest,
        component: Bytes,
        patience: Patience,
    ) -> Result<PluginInfo, CompileError> {
        let (factory, bytes) = (Arc::clone(&self.factory), component.clone());
        let look = tokio::task::spawn_blocking(move || factory.load_compiled(&digest, &bytes));
        if let Some(info) = look.await.map_err(|_| CompileError::Stopping)?? {
            return Ok(info);
        }
        let bound = |time| Some(time).filter(|_| patience == Patience::Bounded);
        let free = Arc::clone(&self.permits).acquire_owned();
        let free = within(bound(self.limits.wait), free).await;
        let permit = free
            .ok_or(CompileError::Busy { waited_ms: self.limits.wait.as_millis() })?
            .map_err(|_closed| CompileError::Stopping)?;
        let (tell, told) = oneshot::channel();
        let factory = Arc::clone(&self.factory);
        let compile = move || {
            let done = factory.load(&digest, &component);
            // Release the permit before the waiter is told: it may ask again. Unwinding releases it, too.
            drop(permit);
            // The waiter may have timed out. The next request finds the component loaded, or in the cache.
            let _ = tell.send(done);
        };
        // Not of the runtime's pool: a runtime that shuts down waits for those, and this may take minutes.
        std::thread::Builder::new()
            .name("compile".to_owned())
            .spawn(compile)
            .map_err(CompileError::NoThread)?;
        let done = within(bound(self.limits.timeout), told).await;
        let done = done.ok_or(CompileError::TimedOut { timeout_ms: self.limits.timeout.as_millis() })?;
        Ok(done.map_err(|_dropped| CompileError::Panicked)??)
    }
}

/// What a future gives, unless it takes longer than the bound.
async fn within<T>(bound: Option<Duration>, future: impl Future<Output = T>) -> Option<T> {
    match bound {
        Some(time) => tokio::time::timeout(time, future).await.ok(),
        None => Some(future.await),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest_of;
    use crate::slow::SlowFactory;

    const LIMITS: CompileLimits =
        CompileLimits { at_once: 1, wait: Duration::from_secs(3), timeout: Duration::from_secs(60) };

    /// What becomes of a component, and how long that took by tokio's clock, which stands still unless everybody waits.
    async fn check(compiler: &Compiler, component: &'static str, patience: Patience, expect: (&str, u64)) {
        let bytes = Bytes::from_static(component.as_bytes());
        let before = tokio::time::Instant::now();
        let outcome = match compiler.load(digest_of(&bytes), bytes, patience).await {
            Ok(_) => "loaded",
            Err(CompileError::TimedOut { timeout_ms: 60_000 }) => "timed out",
            Err(CompileError::Busy { waited_ms: 3_000 }) => "busy",
            Err(CompileError::Panicked) => "panicked",
            Err(other) => panic!("{component}: {other}"),
        };
        assert_eq!((outcome, before.elapsed().as_secs()), expect, "{component}");
    }

    fn until_idle(compiler: &Compiler) {
        while compiler.permits.available_permits() < LIMITS.at_once {
            std::thread::yield_now();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_waits_for_long_and_the_result_is_kept() {
        let factory = SlowFactory::new();
        let compiler = Compiler::new(Arc::clone(&factory) as Arc<dyn PluginFactory>, LIMITS);
        check(&compiler, "slow one", Patience::Bounded, ("timed out", 60)).await;
        factory.until_compiling(1);
        check(&compiler, "slow two", Patience::Bounded, ("busy", 3)).await;
        // Somebody asks again while it still goes on: it is not compiled twice.
        check(&compiler, "slow one", Patience::Bounded, ("busy", 3)).await;
        factory.until_compiling(1);
        factory.let_go();
        until_idle(&compiler);
        check(&compiler, "slow one", Patience::Bounded, ("loaded", 0)).await;
        check(&compiler, "slow two", Patience::Endless, ("loaded", 0)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_compiled_waits_for_nobody() {
        let factory = SlowFactory::new();
        let compiler = Compiler::new(Arc::clone(&factory) as Arc<dyn PluginFactory>, LIMITS);
        check(&compiler, "quick", Patience::Endless, ("loaded", 0)).await;
        check(&compiler, "slow", Patience::Bounded, ("timed out", 60)).await;
        check(&compiler, "quick", Patience::Bounded, ("loaded", 0)).await;
        factory.let_go();
    }

    #[tokio::test(start_paused = true)]
    async fn a_compiler_that_panics_makes_room_again() {
        let compiler = Compiler::new(SlowFactory::new(), LIMITS);
        for _ in 0..3 {
            check(&compiler, "panic", Patience::Endless, ("panicked", 0)).await;
        }
        check(&compiler, "quick", Patience::Endless, ("loaded", 0)).await;
    }
}
