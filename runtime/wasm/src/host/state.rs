//! The interface `state`: the stores of a node, as a plugin calls them. What they do is `pelton_streams::node_state`; here keys
//! and values are read out of the guest's memory where they lie, and answers are copied into it once.

use pelton_streams::SlicesIn;
use pelton_streams::answer::SlicesOut;
use pelton_streams::node_state::{ColumnIn, ColumnOut, EntriesOut, NodeState, Refused, WindowsOut};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, WasmList, WasmStr};

use super::HostState;

pub(super) type Caller<'c> = StoreContextMut<'c, HostState>;

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct SlicesParam {
    offsets: WasmList<u32>,
    lengths: WasmList<u32>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct ColumnParam {
    data: WasmList<u8>,
    fields: SlicesParam,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct SlicesAnswer {
    offsets: Vec<u32>,
    lengths: Vec<u32>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct ColumnAnswer {
    data: Vec<u8>,
    fields: SlicesAnswer,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct EntriesAnswer {
    keys: ColumnAnswer,
    values: ColumnAnswer,
    more: bool,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct WindowsAnswer {
    starts: Vec<i64>,
    values: ColumnAnswer,
    more: bool,
}

impl ColumnParam {
    /// wasm32 and every machine that pelton is built for are little-endian, so a list is what lies there.
    pub(super) fn read<'a>(&self, store: &'a Caller<'_>) -> ColumnIn<'a> {
        let offsets = self.fields.offsets.as_le_slice(store);
        let lengths = self.fields.lengths.as_le_slice(store);
        ColumnIn { data: self.data.as_le_slice(store), fields: SlicesIn { offsets, lengths } }
    }
}

impl From<ColumnOut> for ColumnAnswer {
    fn from(ColumnOut { data, fields: SlicesOut { offsets, lengths } }: ColumnOut) -> ColumnAnswer {
        ColumnAnswer { data, fields: SlicesAnswer { offsets, lengths } }
    }
}

impl From<EntriesOut> for EntriesAnswer {
    fn from(EntriesOut { keys, values, more }: EntriesOut) -> EntriesAnswer {
        EntriesAnswer { keys: keys.into(), values: values.into(), more }
    }
}

impl From<WindowsOut> for WindowsAnswer {
    fn from(WindowsOut { starts, values, more }: WindowsOut) -> WindowsAnswer {
        WindowsAnswer { starts, values: values.into(), more }
    }
}

/// Runs a function of what was lent, which reads what it is given in the guest's memory.
pub(super) fn with_lent<T>(
    caller: &mut Caller<'_>,
    run: impl FnOnce(&mut NodeState, &Caller<'_>) -> wasmtime::Result<Result<T, Refused>>,
) -> wasmtime::Result<T> {
    // Aside, so that the guest's memory can be read meanwhile.
    let Some(mut lent) = caller.data_mut().lent.take() else {
        wasmtime::bail!("stores and timers can be used while records are processed, and not in `configure`");
    };
    let called = run(&mut lent, caller);
    caller.data_mut().lent = Some(lent);
    called?.map_err(|refused| wasmtime::Error::msg(refused.0))
}

fn with<T>(
    caller: &mut Caller<'_>,
    store: WasmStr,
    run: impl FnOnce(&mut NodeState, &str, &Caller<'_>) -> Result<T, Refused>,
) -> wasmtime::Result<T> {
    with_lent(caller, |state, memory| Ok(run(state, &store.to_str(memory)?, memory)))
}

pub(super) fn define(linker: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    linker.func_wrap("get", get)?;
    linker.func_wrap("put", put)?;
    linker.func_wrap("range", range)?;
    linker.func_wrap("prefix", prefix)?;
    linker.func_wrap("delete-range", delete_range)?;
    linker.func_wrap("get-windows", get_windows)?;
    linker.func_wrap("put-windows", put_windows)?;
    linker.func_wrap("windows-of", windows_of)
}

fn get(mut caller: Caller<'_>, (store, keys): (WasmStr, ColumnParam)) -> wasmtime::Result<(ColumnAnswer,)> {
    let out = with(&mut caller, store, |state, name, memory| state.get(name, keys.read(memory)))?;
    Ok((out.into(),))
}

fn put(
    mut caller: Caller<'_>,
    (store, keys, values): (WasmStr, ColumnParam, ColumnParam),
) -> wasmtime::Result<()> {
    with(&mut caller, store, |state, name, memory| state.put(name, keys.read(memory), values.read(memory)))
}

fn range(
    mut caller: Caller<'_>,
    (store, start, end, reverse, limit): (WasmStr, WasmList<u8>, Option<WasmList<u8>>, bool, u32),
) -> wasmtime::Result<(EntriesAnswer,)> {
    let out = with(&mut caller, store, |state, name, memory| {
        let end = end.as_ref().map(|end| end.as_le_slice(memory));
        state.range(name, (start.as_le_slice(memory), end), reverse, limit)
    })?;
    Ok((out.into(),))
}

fn prefix(
    mut caller: Caller<'_>,
    (store, prefix, reverse, limit): (WasmStr, WasmList<u8>, bool, u32),
) -> wasmtime::Result<(EntriesAnswer,)> {
    let out = with(&mut caller, store, |state, name, memory| {
        state.prefix(name, prefix.as_le_slice(memory), reverse, limit)
    })?;
    Ok((out.into(),))
}

fn delete_range(
    mut caller: Caller<'_>,
    (store, start, end, limit): (WasmStr, WasmList<u8>, Option<WasmList<u8>>, u32),
) -> wasmtime::Result<(bool,)> {
    let more = with(&mut caller, store, |state, name, memory| {
        let end = end.as_ref().map(|end| end.as_le_slice(memory));
        state.delete_range(name, (start.as_le_slice(memory), end), limit)
    })?;
    Ok((more,))
}

fn get_windows(
    mut caller: Caller<'_>,
    (store, keys, starts): (WasmStr, ColumnParam, WasmList<i64>),
) -> wasmtime::Result<(ColumnAnswer,)> {
    let out = with(&mut caller, store, |state, name, memory| {
        state.get_windows(name, keys.read(memory), starts.as_le_slice(memory))
    })?;
    Ok((out.into(),))
}

fn put_windows(
    mut caller: Caller<'_>,
    (store, keys, starts, values): (WasmStr, ColumnParam, WasmList<i64>, ColumnParam),
) -> wasmtime::Result<()> {
    with(&mut caller, store, |state, name, memory| {
        state.put_windows(name, keys.read(memory), starts.as_le_slice(memory), values.read(memory))
    })
}

fn windows_of(
    mut caller: Caller<'_>,
    (store, key, first, last, reverse, limit): (WasmStr, WasmList<u8>, i64, i64, bool, u32),
) -> wasmtime::Result<(WindowsAnswer,)> {
    let out = with(&mut caller, store, |state, name, memory| {
        state.windows_of(name, key.as_le_slice(memory), (first, last), reverse, limit)
    })?;
    Ok((out.into(),))
}
