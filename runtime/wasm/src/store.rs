//! A store: what one instance runs in, the exports that are called in it, and why a call failed.

use std::sync::Arc;

use pelton_streams::log::LogSink;
use pelton_streams::world::Place;
use pelton_streams::{PluginError, PluginLimits, World};
use wasmtime::component::{Instance, TypedFunc};
use wasmtime::{Engine, Store, Trap, WasmBacktrace};

use crate::host::{CallLog, DomainParam, HostState};
use crate::limits::{Limiter, MemoryPool, Refused, epochs, hostcall_fuel};
use crate::marshal::{BatchArg, ColumnArg, ColumnRet, FailureRet, OrderArg, OutputRet, UnfinishedRet};

/// The function that takes settings.
pub(crate) const CONFIGURE: &str = "configure";
/// Parameters of [`CONFIGURE`].
pub(crate) type ConfigureArgs<'a> = (&'a [(&'a str, &'a str)],);
/// Results of [`CONFIGURE`].
pub(crate) type ConfigureRet = (Result<(), String>,);

/// wasmtime's text for an answer that makes the host allocate more than [`hostcall_fuel`].
const FUEL_EXHAUSTED: &str = "fuel allocated for hostcalls has been exhausted";

/// Records as an answer, or a failure.
type Records = (Result<OutputRet, FailureRet>,);
/// Values as an answer, or a failure.
type Values = (Result<ColumnRet, FailureRet>,);

/// An export that is given a batch, and answers or fails.
#[derive(Clone, Copy)]
pub(crate) struct Process(TypedFunc<(BatchArg<'static>,), Records>);

/// One that is given timers.
#[derive(Clone, Copy)]
pub(crate) struct Fire(TypedFunc<(DomainParam, ColumnArg<'static>, &'static [i64]), Records>);

/// One that is given records and how many partitions there are.
#[derive(Clone, Copy)]
pub(crate) struct Partition(TypedFunc<(BatchArg<'static>, u32), (Vec<u32>,)>);

/// Records that are not done, or why the plugin cannot go on.
type Consumed = Result<Vec<UnfinishedRet>, String>;

/// One that acts on the outside.
#[derive(Clone, Copy)]
pub(crate) struct Consume(TypedFunc<(BatchArg<'static>, OrderArg), (Consumed,)>);

/// One that is given values, records, and which record goes into which value.
#[derive(Clone, Copy)]
pub(crate) struct Fold(TypedFunc<(ColumnArg<'static>, BatchArg<'static>, &'static [u32]), Values>);

/// One that makes one value of each two.
#[derive(Clone, Copy)]
pub(crate) struct Merge(TypedFunc<(ColumnArg<'static>, ColumnArg<'static>), Values>);

/// What an aggregator exports.
#[derive(Clone, Copy)]
pub(crate) struct Aggregating {
    pub(crate) create: TypedFunc<(), (Result<Vec<u8>, String>,)>,
    pub(crate) add: Fold,
    pub(crate) subtract: Fold,
    pub(crate) merge: Merge,
}

/// The typed exports of an instance, as its world has them.
#[derive(Clone, Copy)]
pub(crate) enum Exports {
    /// What takes records, and what timers call if there are any.
    Process(Process, Option<Fire>),
    Aggregating(Aggregating),
    Partition(Partition),
    Consume(Consume),
}

/// An export that is not there, or has another type.
pub(crate) struct WrongExport {
    pub(crate) export: &'static str,
    pub(crate) error: wasmtime::Error,
}

impl Exports {
    pub(crate) fn of(
        world: World,
        instance: &Instance,
        store: &mut Store<HostState>,
    ) -> Result<Exports, WrongExport> {
        let wrong = |export| move |error| WrongExport { export, error };
        if world.spec().place == Place::Aggregate {
            let mut fold =
                |export| instance.get_typed_func(&mut *store, export).map(Fold).map_err(wrong(export));
            let (add, subtract) = (fold("add")?, fold("subtract")?);
            let merge = instance.get_typed_func(&mut *store, "merge").map(Merge).map_err(wrong("merge"))?;
            let create = instance.get_typed_func(&mut *store, "create").map_err(wrong("create"))?;
            return Ok(Exports::Aggregating(Aggregating { create, add, subtract, merge }));
        }
        if world.spec().place == Place::Topic {
            let partition = instance.get_typed_func(&mut *store, "partition").map(Partition);
            return partition.map(Exports::Partition).map_err(wrong("partition"));
        }
        if world.spec().place == Place::End {
            let consume = instance.get_typed_func(&mut *store, "consume").map(Consume);
            return consume.map(Exports::Consume).map_err(wrong("consume"));
        }
        let process = instance.get_typed_func(&mut *store, "process").map_err(wrong("process"))?;
        let fire = match world.has_timers() {
            true => Some(instance.get_typed_func(&mut *store, "fire").map(Fire).map_err(wrong("fire"))?),
            false => None,
        };
        Ok(Exports::Process(Process(process), fire))
    }
}

// wasmtime copies parameters during the call, so functions of `'static` ones take shorter ones too.

impl Process {
    pub(crate) fn call(
        self,
        store: &mut Store<HostState>,
        batch: BatchArg<'_>,
    ) -> wasmtime::Result<Result<OutputRet, FailureRet>> {
        let function: TypedFunc<(BatchArg<'_>,), _> = self.0;
        let (answer,) = function.call(store, (batch,))?;
        Ok(answer)
    }
}

impl Fire {
    pub(crate) fn call(
        self,
        store: &mut Store<HostState>,
        domain: DomainParam,
        names: ColumnArg<'_>,
        at: &[i64],
    ) -> wasmtime::Result<Result<OutputRet, FailureRet>> {
        let function: TypedFunc<(DomainParam, ColumnArg<'_>, &[i64]), _> = self.0;
        let (answer,) = function.call(store, (domain, names, at))?;
        Ok(answer)
    }
}

impl Partition {
    pub(crate) fn call(
        self,
        store: &mut Store<HostState>,
        batch: BatchArg<'_>,
        partitions: u32,
    ) -> wasmtime::Result<Vec<u32>> {
        let function: TypedFunc<(BatchArg<'_>, u32), _> = self.0;
        let (answer,) = function.call(store, (batch, partitions))?;
        Ok(answer)
    }
}

impl Consume {
    pub(crate) fn call(
        self,
        store: &mut Store<HostState>,
        batch: BatchArg<'_>,
        order: OrderArg,
    ) -> wasmtime::Result<Consumed> {
        let function: TypedFunc<(BatchArg<'_>, OrderArg), _> = self.0;
        let (answer,) = function.call(store, (batch, order))?;
        Ok(answer)
    }
}

impl Fold {
    pub(crate) fn call(
        self,
        store: &mut Store<HostState>,
        values: ColumnArg<'_>,
        batch: BatchArg<'_>,
        groups: &[u32],
    ) -> wasmtime::Result<Result<ColumnRet, FailureRet>> {
        let function: TypedFunc<(ColumnArg<'_>, BatchArg<'_>, &[u32]), _> = self.0;
        let (answer,) = function.call(store, (values, batch, groups))?;
        Ok(answer)
    }
}

impl Merge {
    pub(crate) fn call(
        self,
        store: &mut Store<HostState>,
        left: ColumnArg<'_>,
        right: ColumnArg<'_>,
    ) -> wasmtime::Result<Result<ColumnRet, FailureRet>> {
        let function: TypedFunc<(ColumnArg<'_>, ColumnArg<'_>), _> = self.0;
        let (answer,) = function.call(store, (left, right))?;
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
    let state = HostState { limiter, log: CallLog::new(log), lent: None, http: None, resources: 0 };
    let mut store = Store::new(engine, state);
    store.limiter(|state| &mut state.limiter);
    store.epoch_deadline_trap();
    store.set_hostcall_fuel(hostcall_fuel(limits.output_bytes));
    store
}

/// Sets the deadline of the next call.
pub(crate) fn arm(store: &mut Store<HostState>, deadline_ms: u32) {
    store.set_epoch_deadline(epochs(deadline_ms));
    let state = store.data_mut();
    state.log.begin();
    if let Some(http) = &mut state.http {
        http.begin(deadline_ms);
    }
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
