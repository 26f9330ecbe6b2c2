//! One running plugin: the store and the exports of its instance, and a new store after a failed call.

use std::sync::Arc;

use pelton_streams::{BatchIn, BatchOut, InstanceSpec, InstantiateError, Plugin, PluginError};
use wasmtime::{Engine, Store};

use crate::component::Loaded;
use crate::host::HostState;
use crate::limits::MemoryPool;
use crate::marshal::BatchArg;
use crate::slots::Slot;
use crate::store::{CONFIGURE, ConfigureArgs, ConfigureRet, Process, arm, classify, store};

/// A plugin instance. After a failed call the next one starts it again, in a new store.
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
        // Put back only after a call that returned: a store that trapped is never entered again.
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

/// The plugin has started before with the same settings, so a start fails now for a passing reason alone.
fn restart_failed(error: InstantiateError) -> PluginError {
    match error {
        InstantiateError::Start(error) => error,
        other => PluginError::Fatal(format!("its instance could not be started again: {other}")),
    }
}
