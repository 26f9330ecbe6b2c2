//! Plugins as WebAssembly components: wasmtime behind [`pelton_streams::Plugin`], and the tools that build and inspect
//! components. The contract is in `sdk/wit`.
//!
//! Words of wasmtime: an [`Engine`] compiles and is shared by all; a *component* is compiled code; a *store* holds one
//! running *instance* and is its unit of isolation. A plugin reaches only what its world imports, which is checked when
//! it is loaded. After any trap its store is thrown away.

mod cache;
mod component;
mod engine;
mod host;
mod instance;
mod limits;
mod marshal;
mod null_adapter;
mod package;
mod slots;
mod store;
mod ticker;
pub mod toolchain;

pub use cache::{CacheError, CodeCache};
pub use engine::{Engine, EngineConfig, EngineError};
pub use host::wasi::is_answered;
pub use limits::{DEFAULT_MAX_COMPONENT_BYTES, DEFAULT_MAX_INSTANCES, DEFAULT_MAX_MEMORY_BYTES};
pub use package::{InspectError, Inspection, digest, inspect};

#[cfg(test)]
mod tests;
