//! The only place that knows the broker and what runs plugins at once.

use crate::report::failed;
use anyhow::Context;
use pelton_broker::{Config, Deps};
use pelton_wasm::{CodeCache, Engine, EngineConfig};
use std::sync::Arc;

/// What the broker gets from outside.
pub(crate) fn deps(config: &Config) -> anyhow::Result<Deps> {
    let cache =
        CodeCache::open(config.data_dir.join("plugins")).context("open the cache of compiled plugins")?;
    let engine = EngineConfig {
        max_component_bytes: config.plugin_max_bytes.into(),
        max_instances: config.plugin_max_instances as usize,
        cache: Some(cache),
    };
    let engine = Engine::new(engine).map_err(|error| failed(error.to_string()))?;
    Ok(Deps { plugins: Some(Arc::new(engine)), ..Deps::default() })
}
