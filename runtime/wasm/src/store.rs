//! A store: what one instance runs in, the exports that are called in it, and why a call failed.

use std::sync::Arc;

use pelton_streams::log::LogSink;
use pelton_streams::{PluginError, PluginLimits};
use wasmtime::component::{Instance, TypedFunc};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};

use crate::host::{CallLog, HostState};
use crate::limits::{Limiter, MemoryPool, Refused, epochs, hostcall_fuel};
use crate::marshal::{BatchArg, FailureRet, OutputRet};

/// The function that takes settings.
pub(crate) const CONFIGURE: &str = "configure";
/// The function that takes batches.
pub(crate) const PROCESS: &str = "process";

/// Parameters of [`CONFIGURE`].
pub(crate) type ConfigureArgs<'a> = (&'a [(&'a str, &'a str)],);
/// Results of [`CONFIGURE`].
pub(crate) type ConfigureRet = (Result<(), String>,);

/// wasmtime's text for an answer that makes the host allocate more than [`hostcall_fuel`].
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// The typed export [`PROCESS`].
#[derive(Clone, Copy)]
pub(crate) struct Process(TypedFunc<(BatchArg<'static>,), (Result<OutputRet, FailureRet>,)>);

impl Process {
    pub(crate) fn of(instance: &Instance, store: &mut Store<HostState>) -> wasmtime::Result<Process> {
        instance.get_typed_func(store, PROCESS).map(Process)
    }

    pub(crate) fn call(
        self,
        store: &mut Store<HostState>,
        batch: BatchArg<'_>,
    ) -> wasmtime::Result<Result<OutputRet, FailureRet>> {
        // wasmtime copies parameters during the call, so a function of `'static` ones takes shorter ones too.
        let function: TypedFunc<(BatchArg<'_>,), _> = self.0;
        let (answer,) = function.call(store, (batch,))?;
        Ok(answer)
    }
}

/// An empty store.
pub(crate) fn store(
    engine: &Engine,
    limits: &PluginLimits,
    pool: &Arc<MemoryPool>,
    log: Arc<dyn LogSink>,
) -> Store<HostState> {
    let limiter = Limiter::new(limits.memory_bytes, Arc::clone(pool));
    let state = HostState { limiter, log: CallLog::new(log) };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.epoch_deadline_trap();
    store.set_hostcall_fuel(hostcall_fuel(limits.output_bytes));
    store
}

/// Sets the deadline of the next call.
pub(crate) fn arm(store: &mut Store<HostState>, deadline_ms: u32) {
    store.set_epoch_deadline(epochs(deadline_ms));
    store.data_mut().log.begin();
}

/// Why a call did not return. The store must not be used again.
pub(crate) fn classify(
    store: &mut Store<HostState>,
    limits: &PluginLimits,
    error: &wasmtime::Error,
) -> PluginError {
    let said = store.data_mut().log.end();
    let cause = error.root_cause().to_string();
    let limiter = &store.data().limiter;
    let memory = limiter.refused().map(|refused| match refused {
        Refused::Plugin => PluginError::Memory { limit_bytes: limits.memory_bytes },
        Refused::Server => PluginError::ServerMemory { limit_bytes: limiter.pool_bytes() },
    });
    match (error.downcast_ref::<Trap>(), memory) {
        (Some(Trap::Interrupt), _) => PluginError::Deadline { deadline_ms: limits.deadline_ms },
        // A guest that gets no memory traps in one way or another.
        (_, Some(memory)) => memory,
        _ if cause.contains(FUEL_EXHAUSTED) => {
            PluginError::OutputTooLarge { limit_bytes: limits.output_bytes }
        }
        (Some(trap), _) => {
            let text = trap.to_string();
            PluginError::Trapped { trap: text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned(), said }
        }
        // Errors without a trap: only those while the guest runs have a backtrace.
        (None, _) if error.downcast_ref::<WasmBacktrace>().is_some() => {
            PluginError::Trapped { trap: cause, said }
        }
        (None, _) => PluginError::IllFormed { what: cause },
    }
}
