//! Checks a compiled component against its world, so that a deployment of a wrong one is refused.

use std::sync::Arc;

use pelton_streams::log::NoLog;
use pelton_streams::world::Interface;
use pelton_streams::{Digest, LoadError, PluginError, PluginInfo, PluginLimits, PluginManifest, World};
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component, InstancePre};

use crate::host::{HostState, Linkers, qualified, wasi};
use crate::limits::{CHECK_DEADLINE_MS, MemoryPool};
use crate::marshal::Needs;
use crate::store::{self, Exports, WrongExport};

/// A component that can be instantiated.
pub(crate) struct Loaded {
    pub(crate) info: PluginInfo,
    pub(crate) pre: InstancePre<HostState>,
    pub(crate) needs: Needs,
}

/// Checks imports, exports and the types of both, by starting one instance that is thrown away.
pub(crate) fn check(
    engine: &wasmtime::Engine,
    linkers: &Linkers,
    component: &Component,
    digest: Digest,
    bytes: u64,
    manifest: Option<PluginManifest>,
) -> Result<Loaded, LoadError> {
    let ty = component.component_type();
    let exports = |name: &str| matches!(ty.get_export(engine, name), Some(e) if is_func(&e.ty));
    let world = match &manifest {
        Some(manifest) => World::named(&manifest.world),
        None => Some(World::guess(exports).unwrap_or(World::Transform)),
    };
    let unsupported = || {
        let name = manifest.as_ref().map(|manifest| manifest.world.clone());
        let name = name.or_else(|| world.map(|world| world.to_string())).unwrap_or_default();
        LoadError::UnsupportedWorld { world: name, supported: World::hosted() }
    };
    let world = world.ok_or_else(unsupported)?;
    let linker = linkers.of(world).ok_or_else(unsupported)?;
    for (name, import) in ty.imports(engine) {
        check_import(engine, name, &import.ty, world)?;
    }
    for &export in world.spec().exports {
        if !exports(export) {
            let reason = "it is missing".to_owned();
            return Err(LoadError::BadExport { export: export.to_owned(), world: world.to_string(), reason });
        }
    }
    let invalid = |error: wasmtime::Error| LoadError::Invalid { reason: format!("{error:#}") };
    let linker = wasi::linker(engine, component, linker).map_err(invalid)?;
    let pre = linker.instantiate_pre(component).map_err(invalid)?;
    start_once(engine, &pre, world)?;
    let needs = Needs::of(manifest.as_ref());
    Ok(Loaded { info: PluginInfo { digest, world, manifest, bytes }, pre, needs })
}

fn is_func(item: &ComponentItem) -> bool {
    matches!(item, ComponentItem::ComponentFunc(_))
}

fn check_import(
    engine: &wasmtime::Engine,
    name: &str,
    item: &ComponentItem,
    world: World,
) -> Result<(), LoadError> {
    let offered = match item {
        // Types alone give access to nothing.
        ComponentItem::Type(_) => true,
        ComponentItem::ComponentInstance(instance) => {
            let only_types = || instance.exports(engine).all(|(_, e)| matches!(e.ty, ComponentItem::Type(_)));
            let offered = |interface: &Interface| qualified(*interface) == name;
            world.spec().imports.iter().any(offered) || wasi::is_answered(name) || only_types()
        }
        ComponentItem::ComponentFunc(_)
        | ComponentItem::CoreFunc(_)
        | ComponentItem::Module(_)
        | ComponentItem::Component(_)
        | ComponentItem::Resource(_) => false,
    };
    if offered {
        return Ok(());
    }
    let hint = if name.starts_with("wasi:") {
        "; of WASI only clocks, randomness, the environment, streams, files and sockets of 0.2 may be imported, \
         which all answer nothing"
    } else if name.starts_with("pelton:plugin/") {
        "; it was built for another world or another version of pelton:plugin"
    } else {
        ""
    };
    Err(LoadError::UnknownImport { import: name.to_owned(), world: world.to_string(), hint: hint.to_owned() })
}

fn start_once(
    engine: &wasmtime::Engine,
    pre: &InstancePre<HostState>,
    world: World,
) -> Result<(), LoadError> {
    let limits = PluginLimits { deadline_ms: CHECK_DEADLINE_MS, ..PluginLimits::default() };
    // A pool of its own: a component is not invalid because other plugins have used up the memory of the server.
    let pool = MemoryPool::new(limits.memory_bytes);
    let mut store = store::store(engine, &limits, &pool, Arc::new(NoLog));
    store::arm(&mut store, limits.deadline_ms);
    let started = pre.instantiate(&mut store).map_err(|error| {
        let error: PluginError = store::classify(&mut store, &limits, &error);
        LoadError::Invalid { reason: format!("it does not start: {error}") }
    })?;
    let wrong = |export: &str, error: wasmtime::Error| LoadError::BadExport {
        export: export.to_owned(),
        world: world.to_string(),
        reason: format!("{error:#}"),
    };
    (started.get_typed_func::<store::ConfigureArgs, store::ConfigureRet>(&mut store, store::CONFIGURE))
        .map_err(|error| wrong(store::CONFIGURE, error))?;
    let exports = Exports::of(world, &started, &mut store);
    exports.map(drop).map_err(|WrongExport { export, error }| wrong(export, error))
}
