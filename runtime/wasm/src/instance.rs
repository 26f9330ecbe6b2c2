//! One running plugin: a store, the functions of its instance, and what becomes of a failed call.

use std::sync::Arc;

use pelton_streams::log::LogSink;
use pelton_streams::{BatchIn, BatchOut, InstanceSpec, InstantiateError, Plugin, PluginError, PluginLimits};
use wasmtime::component::{Instance, TypedFunc};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};

use crate::component::Loaded;
use crate::engine::Slot;
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

/// What wasmtime says when an answer makes the host allocate more than it may.
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// The typed export [`PROCESS`].
#[derive(Clone, Copy)]
pub(crate) struct Process(TypedFunc<(BatchArg<'static>,), (Result<OutputRet, FailureRet>,)>);

impl Process {
    pub(crate) fn of(instance: &Instance, store: &mut Store<HostState>) -> wasmtime::Result<Process> {
        instance.get_typed_func(store, PROCESS).map(Process)
    }

    fn call(
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

/// A store with nothing in it.
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

/// What runs next has this much time.
pub(crate) fn arm(store: &mut Store<HostState>, deadline_ms: u32) {
    store.set_epoch_deadline(epochs(deadline_ms));
    store.data_mut().log.begin();
}

/// Why a call did not return. Whatever it was, the store is dead.
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
        // A guest that gets no memory stops itself, one way or another.
        (_, Some(memory)) => memory,
        _ if cause.contains(FUEL_EXHAUSTED) => {
            PluginError::OutputTooLarge { limit_bytes: limits.output_bytes }
        }
        (Some(trap), _) => {
            let text = trap.to_string();
            PluginError::Trapped { trap: text.strip_prefix("wasm trap: ").unwrap_or(&text).to_owned(), said }
        }
        // Only what happens while the guest runs has frames of the guest.
        (None, _) if error.downcast_ref::<WasmBacktrace>().is_some() => {
            PluginError::Trapped { trap: cause, said }
        }
        (None, _) => PluginError::IllFormed { what: cause },
    }
}

/// A plugin that runs, or that is started again by its next call.
pub(crate) struct WasmPlugin {
    engine: Engine,
    pool: Arc<MemoryPool>,
    loaded: Arc<Loaded>,
    spec: InstanceSpec,
    live: Option<Live>,
    _slot: Slot,
}

struct Live {
    store: Store<HostState>,
    process: Process,
}

impl WasmPlugin {
    pub(crate) fn start(
        engine: &Engine,
        pool: Arc<MemoryPool>,
        loaded: Arc<Loaded>,
        spec: &InstanceSpec,
        slot: Slot,
    ) -> Result<WasmPlugin, InstantiateError> {
        let live = Some(Live::start(engine, &pool, &loaded, spec)?);
        Ok(WasmPlugin { engine: engine.clone(), pool, loaded, spec: spec.clone(), live, _slot: slot })
    }
}

impl Live {
    fn start(
        engine: &Engine,
        pool: &Arc<MemoryPool>,
        loaded: &Loaded,
        spec: &InstanceSpec,
    ) -> Result<Live, InstantiateError> {
        let mut store = store(engine, &spec.limits, pool, Arc::clone(&spec.log));
        let started = Live::configure(&mut store, loaded, spec);
        match started {
            Ok((process, Ok(()))) => {
                store.data_mut().log.end();
                Ok(Live { store, process })
            }
            Ok((_, Err(refusal))) => {
                store.data_mut().log.end();
                Err(InstantiateError::Refused(refusal))
            }
            Err(error) => Err(InstantiateError::Start(classify(&mut store, &spec.limits, &error))),
        }
    }

    fn configure(
        store: &mut Store<HostState>,
        loaded: &Loaded,
        spec: &InstanceSpec,
    ) -> wasmtime::Result<(Process, Result<(), String>)> {
        arm(store, spec.limits.deadline_ms);
        let instance = loaded.pre.instantiate(&mut *store)?;
        let configure = instance.get_typed_func::<ConfigureArgs<'_>, ConfigureRet>(&mut *store, CONFIGURE)?;
        let process = Process::of(&instance, store)?;
        let config: Vec<(&str, &str)> = spec.config.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (outcome,) = configure.call(&mut *store, (config.as_slice(),))?;
        Ok((process, outcome))
    }
}

impl Plugin for WasmPlugin {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        // Taken out and put back only after a call that returned: nothing that trapped is entered again.
        let mut live = match self.live.take() {
            Some(live) => live,
            None => {
                Live::start(&self.engine, &self.pool, &self.loaded, &self.spec).map_err(restart_failed)?
            }
        };
        arm(&mut live.store, self.spec.limits.deadline_ms);
        match live.process.call(&mut live.store, BatchArg::new(batch, self.loaded.needs)) {
            Err(error) => Err(classify(&mut live.store, &self.spec.limits, &error)),
            Ok(answer) => {
                live.store.data_mut().log.end();
                self.live = Some(live);
                answer.map(BatchOut::from).map_err(PluginError::from)
            }
        }
    }
}

/// It started before with the same settings, so only what depends on the moment can be wrong now.
fn restart_failed(error: InstantiateError) -> PluginError {
    match error {
        InstantiateError::Start(error) => error,
        other => PluginError::Fatal(format!("it could not be started again: {other}")),
    }
}
