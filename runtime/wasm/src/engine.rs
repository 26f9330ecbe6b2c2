//! The one engine of a process: its configuration, its clock, and the components it has compiled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pelton_streams::http::{HttpClient, Network, NetworkError};
use pelton_streams::plugin::{AggregatorPlugin, ConsumerPlugin, PartitionerPlugin};
use pelton_streams::{Digest, InstanceSpec, InstantiateError, LoadError, Plugin, PluginFactory, PluginInfo};
use wasmtime::component::Component;
use wasmtime::{Config, ModuleVersionStrategy, OptLevel, Strategy};

use crate::cache::{CodeCache, EngineBuild};
use crate::component::{Loaded, check};
use crate::host::Linkers;
use crate::instance::WasmPlugin;
use crate::limits::{
    DEFAULT_MAX_COMPONENT_BYTES, DEFAULT_MAX_INSTANCES, DEFAULT_MAX_MEMORY_BYTES, MAX_WASM_STACK_BYTES,
    MemoryPool,
};
use crate::package;
use crate::slots::Slots;
use crate::ticker::Ticker;

/// The limits of an engine, and its cache.
#[derive(Debug)]
pub struct EngineConfig {
    /// Largest component that is accepted, in bytes.
    pub max_component_bytes: u64,
    /// Instances of all plugins at once.
    pub max_instances: usize,
    /// Memory of all instances together, in bytes.
    pub max_memory_bytes: u64,
    /// Where compiled code is kept; `None`: every start compiles.
    pub cache: Option<CodeCache>,
    /// What sends the requests of plugins; `None`: those that make some do not start.
    pub network: Option<Arc<dyn Network>>,
}

impl Default for EngineConfig {
    fn default() -> EngineConfig {
        EngineConfig {
            max_component_bytes: DEFAULT_MAX_COMPONENT_BYTES,
            max_instances: DEFAULT_MAX_INSTANCES,
            max_memory_bytes: DEFAULT_MAX_MEMORY_BYTES,
            cache: None,
            network: None,
        }
    }
}

/// Why no engine can run on this machine.
#[derive(Debug, thiserror::Error)]
#[error("plugins cannot be run on this machine: {reason}")]
pub struct EngineError {
    /// What wasmtime says.
    pub reason: String,
}

/// Compiles components and makes instances of them. A cheap clone; one per process is enough.
#[derive(Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("instances", &self.instances()).finish_non_exhaustive()
    }
}

struct Shared {
    engine: wasmtime::Engine,
    linkers: Linkers,
    config: EngineConfig,
    /// What compiled code depends on besides the component.
    build: EngineBuild,
    loaded: Mutex<HashMap<Digest, Arc<Loaded>>>,
    slots: Slots,
    memory: Arc<MemoryPool>,
    ticker: Arc<Ticker>,
}

impl Engine {
    /// An engine. Starts a thread that sleeps while no instance exists.
    ///
    /// # Errors
    /// The machine or the process's limits do not allow it.
    pub fn new(config: EngineConfig) -> Result<Engine, EngineError> {
        let failed = |error: wasmtime::Error| EngineError { reason: format!("{error:#}") };
        let engine = wasmtime::Engine::new(&wasmtime_config().map_err(failed)?).map_err(failed)?;
        let linkers = Linkers::new(&engine).map_err(failed)?;
        let build = EngineBuild::of(&engine);
        let ticker =
            Ticker::start(engine.clone()).map_err(|error| EngineError { reason: error.to_string() })?;
        let memory = MemoryPool::new(config.max_memory_bytes);
        let slots = Slots::new(config.max_instances);
        Ok(Engine {
            shared: Arc::new(Shared {
                engine,
                memory,
                linkers,
                config,
                build,
                loaded: Mutex::default(),
                slots,
                ticker,
            }),
        })
    }

    /// How many instances exist.
    pub fn instances(&self) -> usize {
        self.shared.slots.taken()
    }

    /// Bytes of memory that all instances have.
    pub fn memory_bytes(&self) -> u64 {
        self.shared.memory.used()
    }

    /// The cache of compiled code.
    pub fn cache(&self) -> Option<&CodeCache> {
        self.shared.config.cache.as_ref()
    }

    /// The compiled code on disk, of this process or an earlier one.
    fn cached(&self, digest: &Digest) -> Option<Component> {
        let Shared { engine, config, build, .. } = &*self.shared;
        config.cache.as_ref().and_then(|cache| cache.load(engine, digest, build))
    }

    fn compile(&self, digest: &Digest, bytes: &[u8]) -> Result<Component, LoadError> {
        let Shared { engine, config, build, .. } = &*self.shared;
        if wasmparser::Parser::is_core_wasm(bytes) {
            let reason = "it is a core module, not a component; `pelton plugin build` makes components";
            return Err(LoadError::Invalid { reason: reason.to_owned() });
        }
        if !wasmparser::Parser::is_component(bytes) {
            return Err(LoadError::Invalid { reason: package::NOT_WASM.to_owned() });
        }
        let compiled = Component::from_binary(engine, bytes)
            .map_err(|error| LoadError::Invalid { reason: format!("{error:#}") })?;
        if let Some(cache) = &config.cache {
            cache.store(&compiled, digest, build);
        }
        Ok(compiled)
    }

    fn components(&self) -> MutexGuard<'_, HashMap<Digest, Arc<Loaded>>> {
        self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The loaded component, or else the one that `find` gives, once it is checked against its world. The lock is not
    /// held meanwhile: if two callers load the same component, the later one's stays.
    fn load_with(
        &self,
        digest: &Digest,
        bytes: &[u8],
        find: impl FnOnce() -> Result<Option<Component>, LoadError>,
    ) -> Result<Option<PluginInfo>, LoadError> {
        if let Some(loaded) = self.components().get(digest) {
            return Ok(Some(loaded.info.clone()));
        }
        let (size, max_bytes) = (bytes.len() as u64, self.shared.config.max_component_bytes);
        if size > max_bytes {
            return Err(LoadError::TooLarge { bytes: size, max_bytes });
        }
        let actual = package::digest(bytes);
        if actual != *digest {
            return Err(LoadError::DigestMismatch { expected: *digest, actual });
        }
        let Some(component) = find()? else { return Ok(None) };
        let manifest = package::manifest(bytes).map_err(|reason| LoadError::BadManifest { reason })?;
        let _ticking = self.shared.ticker.tick();
        let loaded = check(&self.shared.engine, &self.shared.linkers, &component, *digest, size, manifest)?;
        let info = loaded.info.clone();
        self.components().insert(*digest, Arc::new(loaded));
        Ok(Some(info))
    }
}

impl Engine {
    fn start(
        &self,
        digest: &Digest,
        spec: &InstanceSpec,
        http: Option<&Arc<dyn HttpClient>>,
    ) -> Result<WasmPlugin, InstantiateError> {
        let loaded = self.components().get(digest).cloned().ok_or(InstantiateError::NotLoaded(*digest))?;
        let Shared { engine, memory, slots, ticker, .. } = &*self.shared;
        let slot = slots.take(ticker)?;
        WasmPlugin::start(engine, Arc::clone(memory), loaded, (spec, http), slot)
    }
}

impl PluginFactory for Engine {
    fn load(&self, digest: &Digest, bytes: &[u8]) -> Result<PluginInfo, LoadError> {
        let compiled = || match self.cached(digest) {
            Some(found) => Ok(Some(found)),
            None => self.compile(digest, bytes).map(Some),
        };
        Ok(self.load_with(digest, bytes, compiled)?.expect("what is compiled was found"))
    }

    fn load_compiled(&self, digest: &Digest, bytes: &[u8]) -> Result<Option<PluginInfo>, LoadError> {
        self.load_with(digest, bytes, || Ok(self.cached(digest)))
    }

    fn loaded(&self) -> Vec<Digest> {
        self.components().keys().copied().collect()
    }

    fn instantiate(&self, digest: &Digest, spec: &InstanceSpec) -> Result<Box<dyn Plugin>, InstantiateError> {
        Ok(Box::new(self.start(digest, spec, None)?))
    }

    fn instantiate_aggregator(
        &self,
        digest: &Digest,
        spec: &InstanceSpec,
    ) -> Result<Box<dyn AggregatorPlugin>, InstantiateError> {
        Ok(Box::new(self.start(digest, spec, None)?))
    }

    fn instantiate_partitioner(
        &self,
        digest: &Digest,
        spec: &InstanceSpec,
    ) -> Result<Box<dyn PartitionerPlugin>, InstantiateError> {
        Ok(Box::new(self.start(digest, spec, None)?))
    }

    fn instantiate_consumer(
        &self,
        digest: &Digest,
        spec: &InstanceSpec,
        http: Option<&Arc<dyn HttpClient>>,
    ) -> Result<Box<dyn ConsumerPlugin>, InstantiateError> {
        Ok(Box::new(self.start(digest, spec, http)?))
    }

    fn network(&self) -> Result<&dyn Network, NetworkError> {
        let network = self.shared.config.network.as_deref();
        network.ok_or_else(|| NetworkError::Unavailable("this program sends nothing for plugins".to_owned()))
    }

    fn unload(&self, digest: &Digest) {
        self.components().remove(digest);
    }

    fn forget(&self, digest: &Digest) {
        self.unload(digest);
        let removed = self.cache().map_or(Ok(()), |cache| cache.remove(digest));
        if let Err(error) = removed {
            tracing::warn!(%digest, %error, "cannot remove the compiled code of a plugin that was deleted");
        }
    }
}

/// Features that plugins do not need are off: most security advisories of wasmtime were about those.
pub(crate) fn wasmtime_config() -> wasmtime::Result<Config> {
    let mut config = Config::new();
    // Cranelift alone. Deadlines by epoch: fuel doubles the cost of a tight loop.
    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed);
    config.epoch_interruption(true).consume_fuel(false);
    // Calls are synchronous; the machinery for others costs 0.2 µs a call.
    config.concurrency_support(false);
    config.wasm_component_model(true);
    config.wasm_tail_call(false).wasm_memory64(false);
    // Where parts of a component have memories of their own (those of QuickJS do), wasmtime's code between them has both.
    config.wasm_multi_memory(true);
    config.wasm_relaxed_simd(false).wasm_simd(false);
    // The same input gives the same output on every machine.
    config.cranelift_nan_canonicalization(true);
    config.max_wasm_stack(MAX_WASM_STACK_BYTES);
    // Backtraces stay on: their presence tells a trap from an answer that cannot be read. Source positions are off:
    // they would double the compiled code, and stripped plugins have none.
    config.generate_address_map(false);
    // Memory is reserved and guarded as wasmtime does by default: no bounds-check tricks. Instances are allocated on
    // demand: they live as long as their driver, so a pool would save microseconds once, and would need the largest
    // memory that any manifest may ever ask for to be known now.
    //
    // By itself wasmtime loads code that any release of its major version has compiled, but a patch may fix the
    // compiler.
    config.module_version(ModuleVersionStrategy::Custom(wasmtime_environ::VERSION.to_owned()))?;
    Ok(config)
}
