//! The wiring of the broker with wasmtime, RocksDB and what sends for plugins: the only module that knows them.

use crate::report::{Exit, Failure, failed};
use anyhow::Context;
use pelton_broker::{Config, Deps};
use pelton_outbound::Outbound;
use pelton_state::{RocksFactory, StateMemory};
use pelton_wasm::{CodeCache, Engine, EngineConfig};
use std::sync::Arc;

pub(crate) fn deps(config: &Config) -> anyhow::Result<Deps> {
    let dir = &config.data_dir;
    std::fs::create_dir_all(dir).map_err(|error| {
        Failure::new(Exit::Usage, format!("`data.dir` is `{}`, which cannot be used: {error}", dir.display()))
            .hint("give a directory that can be written to, with --data-dir or PELTON_DATA_DIR")
    })?;
    let cache =
        CodeCache::open(config.data_dir.join("plugins")).context("open the cache of compiled plugins")?;
    let engine = EngineConfig {
        max_component_bytes: config.plugin_max_bytes.into(),
        max_instances: config.plugin_max_instances as usize,
        max_memory_bytes: config.plugin_memory_bytes(),
        cache: Some(cache),
        network: Some(Arc::new(Outbound::new(config.secrets_path()))),
    };
    let engine = Engine::new(engine).map_err(|error| failed(error.to_string()))?;
    let state = RocksFactory::new(StateMemory {
        block_cache_bytes: usize::try_from(config.state_block_cache_bytes).unwrap_or(usize::MAX),
        write_buffer_bytes: usize::try_from(config.state_write_buffer_bytes).unwrap_or(usize::MAX),
        threads: i32::try_from(config.state_threads).unwrap_or(i32::MAX),
    });
    Ok(Deps { plugins: Some(Arc::new(engine)), state: Some(Arc::new(state)), ..Deps::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_that_cannot_be_used_is_refused_by_its_key() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let dir = file.path().join("data");
        let dir = dir.to_str().unwrap();
        let config = Config::from_pairs([("data.dir", dir)]).unwrap();
        let told = deps(&config).err().unwrap().to_string();
        assert!(told.contains("`data.dir`") && told.contains(dir), "{told}");
    }
}
