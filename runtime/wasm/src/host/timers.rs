//! The interface `timers`. What it does is `pelton_streams::node_state::timers`.

use pelton_streams::operator::TimerDomain;
use wasmtime::component::{ComponentType, Lift, LinkerInstance, Lower, WasmList};

use super::HostState;
use super::state::{Caller, ColumnParam, with_lent};

#[derive(ComponentType, Lift, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum DomainParam {
    #[component(name = "stream-time")]
    StreamTime,
    #[component(name = "wall-clock")]
    WallClock,
}

impl From<DomainParam> for TimerDomain {
    fn from(domain: DomainParam) -> TimerDomain {
        match domain {
            DomainParam::StreamTime => TimerDomain::StreamTime,
            DomainParam::WallClock => TimerDomain::WallClock,
        }
    }
}

impl From<TimerDomain> for DomainParam {
    fn from(domain: TimerDomain) -> DomainParam {
        match domain {
            TimerDomain::StreamTime => DomainParam::StreamTime,
            TimerDomain::WallClock => DomainParam::WallClock,
        }
    }
}

pub(super) fn define(linker: &mut LinkerInstance<'_, HostState>) -> wasmtime::Result<()> {
    linker.func_wrap("set", set)?;
    linker.func_wrap("cancel", cancel)?;
    linker.func_wrap("clock", clock)
}

fn set(
    mut caller: Caller<'_>,
    (domain, names, at): (DomainParam, ColumnParam, WasmList<i64>),
) -> wasmtime::Result<()> {
    with_lent(&mut caller, |state, memory| {
        Ok(state.set_timers(domain.into(), names.read(memory), at.as_le_slice(memory)))
    })
}

fn cancel(mut caller: Caller<'_>, (domain, names): (DomainParam, ColumnParam)) -> wasmtime::Result<()> {
    with_lent(&mut caller, |state, memory| Ok(state.cancel_timers(domain.into(), names.read(memory))))
}

fn clock(mut caller: Caller<'_>, (): ()) -> wasmtime::Result<(i64,)> {
    with_lent(&mut caller, |state, _| Ok(Ok((state.clock_ms(),))))
}
