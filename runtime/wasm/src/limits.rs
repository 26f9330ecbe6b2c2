//! Every limit of the host that is not a plugin's own (those are in `pelton_streams::limits`), and the limiter of a store.

use wasmtime::ResourceLimiter;

/// Largest component that is taken. CPython's, the largest of the known toolchains, has 18 MiB.
pub const DEFAULT_MAX_COMPONENT_BYTES: u64 = 32 << 20;
/// Instances of all plugins at once. One runs for each node and input partition; each may reserve 4 GiB of address
/// space, and 1,000 of them fit four times into the 47 bits that a process has.
pub const DEFAULT_MAX_INSTANCES: usize = 1_000;

/// How often the epoch advances. A deadline is kept to within two of these; each one wakes a thread.
pub(crate) const EPOCH_TICK_MS: u32 = 10;
/// Stack of a guest, in bytes: deep recursion traps here. A quarter of what a thread has by default.
pub(crate) const MAX_WASM_STACK_BYTES: usize = 512 << 10;
/// Elements of all tables of an instance: function pointers. Go's and CPython's have some tens of thousands.
const MAX_TABLE_ELEMENTS: usize = 200_000;
/// Core instances, memories and tables inside one component. QuickJS needs five.
const MAX_INNER_INSTANCES: usize = 64;
/// What starting and configuring an instance may take before its own deadline is known.
pub(crate) const CHECK_DEADLINE_MS: u32 = 5_000;
/// Bytes of a `plugin.toml` inside a component.
pub(crate) const MAX_PLUGIN_TOML_BYTES: usize = pelton_streams::manifest::MAX_MANIFEST_BYTES;

/// Bytes that one answer may make the host allocate. An answer within its limit needs less: a record counts for 16
/// bytes there and takes at most 36 in columns. It bounds lists that all point at the same memory of the guest.
pub(crate) fn hostcall_fuel(output_bytes: u64) -> usize {
    usize::try_from(output_bytes.saturating_mul(4).saturating_add(64 << 10)).unwrap_or(usize::MAX)
}

/// Epochs from now until `deadline_ms` have passed for certain: the first tick may come at once.
pub(crate) fn epochs(deadline_ms: u32) -> u64 {
    u64::from(deadline_ms.div_ceil(EPOCH_TICK_MS)) + 1
}

/// Bounds what one store may take, and remembers that it was refused something.
#[derive(Debug)]
pub(crate) struct Limiter {
    max_memory: usize,
    memory: usize,
    tables: usize,
    refused: bool,
}

impl Limiter {
    pub(crate) fn new(max_memory_bytes: u64) -> Limiter {
        let max_memory = usize::try_from(max_memory_bytes).unwrap_or(usize::MAX);
        Limiter { max_memory, memory: 0, tables: 0, refused: false }
    }

    /// Whether memory was refused: a guest that then traps did so for that reason.
    pub(crate) fn refused(&self) -> bool {
        self.refused
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
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        if total > self.max_memory {
            self.refused = true;
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
