//! The limits of the host, and the limiter of a store. Those of a single plugin are in `pelton_streams::limits`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use wasmtime::ResourceLimiter;

/// Largest component that is accepted. CPython's, the largest of the known toolchains, has 18 MiB.
pub const DEFAULT_MAX_COMPONENT_BYTES: u64 = 32 << 20;
/// Instances of all plugins at once. One runs for each node of a pipeline; each may reserve 4 GiB of address
/// space, and 1,000 of them fit four times into the 47 bits that a process has.
pub const DEFAULT_MAX_INSTANCES: usize = 1_000;

/// Memory of all instances together, unless the server's configuration says otherwise.
pub const DEFAULT_MAX_MEMORY_BYTES: u64 = 1 << 30;

/// How often the epoch advances. A deadline is kept to within two of these; each one wakes a thread.
pub(crate) const EPOCH_TICK_MS: u32 = 10;
/// Stack of a guest, in bytes: deep recursion traps here. A quarter of what a thread has by default.
pub(crate) const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// Elements of all tables of an instance: function pointers. Go's and CPython's have some tens of thousands.
const MAX_TABLE_ELEMENTS: usize = 200_000;
/// Core instances, memories and tables inside one component. QuickJS needs five.
const MAX_INNER_INSTANCES: usize = 64;
/// Milliseconds for starting and configuring an instance while its own deadline is not known.
pub(crate) const CHECK_DEADLINE_MS: u32 = 5_000;
/// Bytes of a `plugin.toml` inside a component.
pub(crate) const MAX_PLUGIN_TOML_BYTES: usize = pelton_streams::manifest::MAX_MANIFEST_BYTES;

/// Bytes that one answer may make the host allocate. An answer within its limit needs less: a record counts for 16
/// bytes of the limit and takes at most 36 in columns. The bound is for answers whose lists all point at the same
/// memory of the guest. What a call writes to its stores is bounded in the same way.
pub(crate) fn hostcall_fuel(limit_bytes: u64) -> usize {
    usize::try_from(limit_bytes.saturating_mul(4).saturating_add(64 << 10)).unwrap_or(usize::MAX)
}

/// Epochs after which `deadline_ms` have certainly passed: the first tick may come at once.
pub(crate) fn epochs(deadline_ms: u32) -> u64 {
    u64::from(deadline_ms.div_ceil(EPOCH_TICK_MS)) + 1
}

/// The memory of all instances together. It is charged as instances grow, because most stay far below their own limit.
#[derive(Debug)]
pub(crate) struct MemoryPool {
    pub(crate) max_bytes: u64,
    used: AtomicU64,
}

impl MemoryPool {
    pub(crate) fn new(max_bytes: u64) -> Arc<MemoryPool> {
        Arc::new(MemoryPool { max_bytes, used: AtomicU64::new(0) })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: usize) -> bool {
        let more = |used: u64| used.checked_add(bytes as u64).filter(|sum| *sum <= self.max_bytes);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }
}

/// Which limit refused memory to a guest. A trap that follows is reported as that refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// `limits.memory` of the plugin.
    Plugin,
    /// `pelton.plugin.memory.max.bytes`.
    Server,
}

/// Bounds the memory and tables of one store, and remembers a refusal of memory.
#[derive(Debug)]
pub(crate) struct Limiter {
    max_memory: usize,
    memory: usize,
    pool: Arc<MemoryPool>,
    tables: usize,
    refused: Option<Refused>,
}

impl Limiter {
    pub(crate) fn new(max_memory_bytes: u64, pool: Arc<MemoryPool>) -> Limiter {
        let max_memory = usize::try_from(max_memory_bytes).unwrap_or(usize::MAX);
        Limiter { max_memory, memory: 0, pool, tables: 0, refused: None }
    }

    /// The limit that refused memory last, if one did.
    pub(crate) fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// What the store has.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.memory as u64
    }

    /// The most that all instances may have.
    pub(crate) fn pool_bytes(&self) -> u64 {
        self.pool.max_bytes
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.memory as u64, Ordering::Relaxed);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        // All memories of a component count together.
        let more = desired.saturating_sub(current);
        let total = self.memory.saturating_add(more);
        if total > self.max_memory {
            self.refused = Some(Refused::Plugin);
            return Ok(false);
        }
        if !self.pool.take(more) {
            self.refused = Some(Refused::Server);
            return Ok(false);
        }
        self.memory = total;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _max: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let total = self.tables.saturating_add(desired.saturating_sub(current));
        if total > MAX_TABLE_ELEMENTS {
            return Ok(false);
        }
        self.tables = total;
        Ok(true)
    }

    fn instances(&self) -> usize {
        MAX_INNER_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_INNER_INSTANCES
    }

    fn memories(&self) -> usize {
        MAX_INNER_INSTANCES
    }
}
