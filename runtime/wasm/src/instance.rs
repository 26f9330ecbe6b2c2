//! One running plugin: the store and the exports of its instance, and a new store after a failed call.

use std::sync::Arc;
use std::time::Instant;

use pelton_streams::http::HttpClient;
use pelton_streams::log::LogPlace;
use pelton_streams::meter::{CallEnd, CallReport};
use pelton_streams::node_state::{ColumnOut, NodeState};
use pelton_streams::operator::TimerDomain;
use pelton_streams::operator::aggregate::Way;
use pelton_streams::plugin::{AggregatorPlugin, CallOrder, ConsumerPlugin, PartitionerPlugin, Unfinished};
use pelton_streams::{BatchIn, BatchOut, InstanceSpec, InstantiateError, Plugin, PluginError};
use wasmtime::{Engine, Store};

use crate::component::Loaded;
use crate::host::{HostState, Sending};
use crate::limits::{MemoryPool, hostcall_fuel};
use crate::marshal::{BatchArg, ColumnArg, ColumnRet, FailureRet, OutputRet, clipped};
use crate::slots::Slot;
use crate::store::{
    Aggregating, CONFIGURE, ConfigureArgs, ConfigureRet, Exports, WrongExport, arm, classify, store,
};

/// A plugin instance. After a failed call the next one starts it again, in a new store.
pub(crate) struct WasmPlugin {
    engine: Engine,
    pool: Arc<MemoryPool>,
    loaded: Arc<Loaded>,
    spec: InstanceSpec,
    /// What sends its requests, if it may make some.
    http: Option<Arc<dyn HttpClient>>,
    live: Option<Live>,
    _slot: Slot,
}

struct Live {
    store: Store<HostState>,
    exports: Exports,
}

impl WasmPlugin {
    pub(crate) fn start(
        engine: &Engine,
        pool: Arc<MemoryPool>,
        loaded: Arc<Loaded>,
        (spec, http): (&InstanceSpec, Option<&Arc<dyn HttpClient>>),
        slot: Slot,
    ) -> Result<WasmPlugin, InstantiateError> {
        let live = Some(Live::start(engine, &pool, &loaded, (spec, http))?);
        let (engine, spec, http) = (engine.clone(), spec.clone(), http.cloned());
        Ok(WasmPlugin { engine, pool, loaded, spec, http, live, _slot: slot })
    }

    /// The running instance, or a new one. It is put back only after a call that returned: a store that trapped is never
    /// entered again.
    fn take(&mut self) -> Result<Live, PluginError> {
        match self.live.take() {
            Some(live) => Ok(live),
            None => {
                let how = (&self.spec, self.http.as_ref());
                Live::start(&self.engine, &self.pool, &self.loaded, how).map_err(restart_failed)
            }
        }
    }

    /// What lines of the next call are about: the record that it begins with.
    fn about(&self, batch: &BatchIn<'_>) {
        let partition = batch.partition.cast_signed();
        let offset = batch.offsets.first().copied().unwrap_or(-1);
        self.spec.log.about(Some(LogPlace {
            topic: batch.topic,
            partition,
            offset,
            records: batch.offsets.len() as u64,
        }));
    }

    /// One call of an instance that was taken.
    fn call<T>(
        &self,
        live: &mut Live,
        call: impl FnOnce(Exports, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        arm(&mut live.store, self.spec.limits.deadline_ms);
        let began = Instant::now();
        let called = call(live.exports, &mut live.store);
        let took = began.elapsed();
        let answer = match called {
            Err(error) => Err(classify(&mut live.store, &self.spec.limits, &error)),
            Ok(answer) => {
                live.store.data_mut().log.end();
                Ok(answer)
            }
        };
        let end = match &answer {
            Ok(_) => CallEnd::Answered,
            Err(PluginError::Trapped { .. }) => CallEnd::Trapped,
            Err(PluginError::Deadline { .. }) => CallEnd::TimedOut,
            Err(_) => CallEnd::Failed,
        };
        let memory_bytes = live.store.data().limiter.memory_bytes();
        self.spec.log.called(&CallReport { took, memory_bytes, end });
        answer
    }

    /// The same, of the running instance or a new one.
    fn call_once<T>(
        &mut self,
        call: impl FnOnce(Exports, &mut Store<HostState>) -> wasmtime::Result<T>,
    ) -> Result<T, PluginError> {
        let mut live = self.take()?;
        let answer = self.call(&mut live, call)?;
        self.live = Some(live);
        Ok(answer)
    }

    /// The same with the stores of the node, which are given back.
    fn call_with(
        &mut self,
        state: NodeState,
        call: impl FnOnce(Exports, &mut Store<HostState>) -> wasmtime::Result<Result<OutputRet, FailureRet>>,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        let mut live = match self.take() {
            Ok(live) => live,
            Err(error) => return (Err(error), state),
        };
        live.store.data_mut().lent = Some(state);
        let limits = &self.spec.limits;
        live.store.set_hostcall_fuel(hostcall_fuel(limits.output_bytes.max(limits.state_bytes)));
        let called = self.call(&mut live, call);
        let state =
            live.store.data_mut().lent.take().expect("a function that takes the stores puts them back");
        let answer = called.and_then(|answer| {
            self.live = Some(live);
            answer.map(BatchOut::from).map_err(PluginError::from)
        });
        (answer, state)
    }

    /// The values that an aggregator answers, within its limit.
    fn values(&self, answer: Result<ColumnRet, FailureRet>) -> Result<ColumnOut, PluginError> {
        let values = ColumnOut::from(answer?);
        let limit_bytes = self.spec.limits.output_bytes;
        if values.data.len() as u64 > limit_bytes {
            return Err(PluginError::OutputTooLarge { limit_bytes });
        }
        Ok(values)
    }
}

impl Live {
    fn start(
        engine: &Engine,
        pool: &Arc<MemoryPool>,
        loaded: &Loaded,
        (spec, http): (&InstanceSpec, Option<&Arc<dyn HttpClient>>),
    ) -> Result<Live, InstantiateError> {
        let mut store = store(engine, &spec.limits, pool, Arc::clone(&spec.log));
        store.data_mut().log.redact_by(http);
        let started = Live::configure(&mut store, loaded, spec);
        match started {
            Ok((exports, Ok(()))) => {
                store.data_mut().log.end();
                // Settings are read without it: a deployment that is refused has sent nothing.
                store.data_mut().http = http.map(Sending::new);
                Ok(Live { store, exports })
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
    ) -> wasmtime::Result<(Exports, Result<(), String>)> {
        arm(store, spec.limits.deadline_ms);
        let instance = loaded.pre.instantiate(&mut *store)?;
        let configure = instance.get_typed_func::<ConfigureArgs<'_>, ConfigureRet>(&mut *store, CONFIGURE)?;
        let exports = Exports::of(loaded.info.world, &instance, store);
        let exports = exports.map_err(|WrongExport { error, .. }| error)?;
        let config: Vec<(&str, &str)> = spec.config.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let (outcome,) = configure.call(&mut *store, (config.as_slice(),))?;
        Ok((exports, outcome))
    }
}

/// A node never has a plugin of another world than its place needs: that was checked when the pipeline was linked.
fn another_world<T>() -> wasmtime::Result<T> {
    wasmtime::bail!("the plugin is of another world")
}

impl Plugin for WasmPlugin {
    fn process(&mut self, batch: &BatchIn<'_>) -> Result<BatchOut, PluginError> {
        self.about(batch);
        let batch = BatchArg::new(batch, self.loaded.needs);
        let answer = self.call_once(|exports, store| match exports {
            Exports::Process(process, _) => process.call(store, batch),
            Exports::Aggregating(_) | Exports::Partition(_) | Exports::Consume(_) => another_world(),
        })?;
        answer.map(BatchOut::from).map_err(PluginError::from)
    }

    fn process_with(
        &mut self,
        batch: &BatchIn<'_>,
        state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        self.about(batch);
        let batch = BatchArg::new(batch, self.loaded.needs);
        self.call_with(state, |exports, store| match exports {
            Exports::Process(process, _) => process.call(store, batch),
            Exports::Aggregating(_) | Exports::Partition(_) | Exports::Consume(_) => another_world(),
        })
    }

    fn fire(
        &mut self,
        domain: TimerDomain,
        (names, at): (&ColumnOut, &[i64]),
        state: NodeState,
    ) -> (Result<BatchOut, PluginError>, NodeState) {
        self.spec.log.about(None);
        self.call_with(state, |exports, store| match exports {
            Exports::Process(_, Some(fire)) => fire.call(store, domain.into(), ColumnArg::new(names), at),
            Exports::Process(_, None)
            | Exports::Aggregating(_)
            | Exports::Partition(_)
            | Exports::Consume(_) => another_world(),
        })
    }
}

impl WasmPlugin {
    fn aggregating(
        &mut self,
        call: impl FnOnce(Aggregating, &mut Store<HostState>) -> wasmtime::Result<Result<ColumnRet, FailureRet>>,
    ) -> Result<ColumnOut, PluginError> {
        let answer = self.call_once(|exports, store| match exports {
            Exports::Aggregating(exports) => call(exports, store),
            Exports::Process(..) | Exports::Partition(_) | Exports::Consume(_) => another_world(),
        })?;
        self.values(answer)
    }
}

impl AggregatorPlugin for WasmPlugin {
    fn create(&mut self) -> Result<Vec<u8>, PluginError> {
        let answer = self.call_once(|exports, store| match exports {
            Exports::Aggregating(exports) => Ok(exports.create.call(store, ())?.0),
            Exports::Process(..) | Exports::Partition(_) | Exports::Consume(_) => another_world(),
        })?;
        answer.map_err(|reason| PluginError::Fatal(format!("it has no first value: {reason}")))
    }

    fn fold(
        &mut self,
        way: Way,
        values: &ColumnOut,
        batch: &BatchIn<'_>,
        groups: &[u32],
    ) -> Result<ColumnOut, PluginError> {
        self.about(batch);
        let (values, batch) = (ColumnArg::new(values), BatchArg::new(batch, self.loaded.needs));
        self.aggregating(|exports, store| {
            let fold = match way {
                Way::In => exports.add,
                Way::Out => exports.subtract,
            };
            fold.call(store, values, batch, groups)
        })
    }

    fn merge(&mut self, left: &ColumnOut, right: &ColumnOut) -> Result<ColumnOut, PluginError> {
        let (left, right) = (ColumnArg::new(left), ColumnArg::new(right));
        self.aggregating(|exports, store| exports.merge.call(store, left, right))
    }

    fn reads(&self) -> (bool, bool) {
        self.loaded.needs.fields()
    }
}

impl ConsumerPlugin for WasmPlugin {
    fn consume(&mut self, batch: &BatchIn<'_>, order: CallOrder) -> Result<Vec<Unfinished>, PluginError> {
        self.about(batch);
        let batch = BatchArg::new(batch, self.loaded.needs);
        let answer = self.call_once(|exports, store| match exports {
            Exports::Consume(consume) => consume.call(store, batch, order.into()),
            Exports::Process(..) | Exports::Aggregating(_) | Exports::Partition(_) => another_world(),
        })?;
        // In this order: a secret that is cut through would not be found.
        let kept = |text: String| match &self.http {
            Some(http) => clipped(http.redact(&text)),
            None => clipped(text),
        };
        let unfinished = answer.map_err(|reason| PluginError::Fatal(kept(reason)))?;
        Ok(unfinished.into_iter().map(|one| one.keep(kept)).collect())
    }
}

impl PartitionerPlugin for WasmPlugin {
    fn partition(&mut self, batch: &BatchIn<'_>, partitions: u32) -> Result<Vec<u32>, PluginError> {
        self.about(batch);
        let batch = BatchArg::new(batch, self.loaded.needs);
        self.call_once(|exports, store| match exports {
            Exports::Partition(partition) => partition.call(store, batch, partitions),
            Exports::Process(..) | Exports::Aggregating(_) | Exports::Consume(_) => another_world(),
        })
    }
}

/// The plugin has started before with the same settings, so a start fails now for a passing reason alone.
fn restart_failed(error: InstantiateError) -> PluginError {
    match error {
        InstantiateError::Start(error) => error,
        other => PluginError::Fatal(format!("its instance could not be started again: {other}")),
    }
}
