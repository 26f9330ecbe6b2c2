//! The records of `sdk/wit` as wasmtime lowers and lifts them. Lists are passed as borrowed slices and returned as
//! owned vectors, each with one copy; the types that `bindgen!` generates would allocate for each field that is passed.

use pelton_streams::node_state::ColumnOut;
use pelton_streams::plugin::{CallOrder, Rejection, Unfinished};
use pelton_streams::plugin_manifest::Field;
use pelton_streams::{
    BatchIn, BatchOut, HeadersIn, HeadersOut, PluginError, PluginManifest, SlicesIn, SlicesOut,
};
use wasmtime::component::{ComponentType, Lift, Lower};

/// Bytes of a plugin's reason that are kept.
const MAX_REASON_BYTES: usize = 1024;

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct SlicesArg<'a> {
    offsets: &'a [u32],
    lengths: &'a [u32],
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct HeadersArg<'a> {
    counts: &'a [u32],
    names: SlicesArg<'a>,
    values: SlicesArg<'a>,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct BatchArg<'a> {
    topic: &'a str,
    partition: u32,
    data: &'a [u8],
    offsets: &'a [i64],
    keys: SlicesArg<'a>,
    values: SlicesArg<'a>,
    timestamps: &'a [i64],
    headers: Option<HeadersArg<'a>>,
}

#[derive(ComponentType, Lower, Clone, Copy)]
#[component(record)]
pub(crate) struct ColumnArg<'a> {
    data: &'a [u8],
    fields: SlicesArg<'a>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct ColumnRet {
    data: Vec<u8>,
    fields: SlicesRet,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct SlicesRet {
    offsets: Vec<u32>,
    lengths: Vec<u32>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct HeadersRet {
    counts: Vec<u32>,
    names: SlicesRet,
    values: SlicesRet,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct OutputRet {
    source: Vec<u32>,
    data: Vec<u8>,
    keys: Option<SlicesRet>,
    values: Option<SlicesRet>,
    timestamps: Option<Vec<i64>>,
    headers: Option<HeadersRet>,
    route: Option<Vec<u32>>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct RejectionRet {
    index: u32,
    reason: String,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(crate) enum FailureRet {
    #[component(name = "retry")]
    Retry(String),
    #[component(name = "reject")]
    Reject(Vec<RejectionRet>),
    #[component(name = "fatal")]
    Fatal(String),
}

/// Which records of a call wait for each other.
#[derive(ComponentType, Lower, Clone, Copy)]
#[component(enum)]
#[repr(u8)]
pub(crate) enum OrderArg {
    #[component(name = "free")]
    Free,
    #[component(name = "whole")]
    Whole,
}

impl From<CallOrder> for OrderArg {
    fn from(order: CallOrder) -> OrderArg {
        match order {
            CallOrder::Free => OrderArg::Free,
            CallOrder::Whole => OrderArg::Whole,
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct UnfinishedRet {
    index: u32,
    reason: String,
    again: Option<u32>,
}

impl UnfinishedRet {
    /// With a reason as `kept` has it.
    pub(crate) fn keep(self, kept: impl Fn(String) -> String) -> Unfinished {
        let UnfinishedRet { index, reason, again } = self;
        Unfinished { index, reason: kept(reason), again }
    }
}

/// A reason, as much of it as is kept.
pub(crate) fn clipped(mut reason: String) -> String {
    reason.truncate(reason.floor_char_boundary(MAX_REASON_BYTES));
    reason
}

/// The fields of a record that a plugin reads. Others are not copied into it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Needs {
    key: bool,
    value: bool,
    headers: bool,
}

impl Needs {
    pub(crate) fn of(manifest: Option<&PluginManifest>) -> Needs {
        let needs = |field| manifest.is_none_or(|manifest| manifest.needs(field));
        Needs { key: needs(Field::Key), value: needs(Field::Value), headers: needs(Field::Headers) }
    }
}

impl Needs {
    /// Whether it reads keys, and values.
    pub(crate) fn fields(self) -> (bool, bool) {
        (self.key, self.value)
    }
}

impl<'a> SlicesArg<'a> {
    fn new(slices: SlicesIn<'a>, needed: bool) -> SlicesArg<'a> {
        let slices = if needed { slices } else { SlicesIn::default() };
        SlicesArg { offsets: slices.offsets, lengths: slices.lengths }
    }
}

impl<'a> BatchArg<'a> {
    pub(crate) fn new(batch: &BatchIn<'a>, needs: Needs) -> BatchArg<'a> {
        let headers = |h: HeadersIn<'a>| HeadersArg {
            counts: h.counts,
            names: SlicesArg::new(h.names, true),
            values: SlicesArg::new(h.values, true),
        };
        BatchArg {
            topic: batch.topic,
            partition: batch.partition,
            data: batch.data,
            offsets: batch.offsets,
            keys: SlicesArg::new(batch.keys, needs.key),
            values: SlicesArg::new(batch.values, needs.value),
            timestamps: batch.timestamps,
            headers: batch.headers.filter(|_| needs.headers).map(headers),
        }
    }
}

impl<'a> ColumnArg<'a> {
    pub(crate) fn new(column: &'a ColumnOut) -> ColumnArg<'a> {
        let SlicesOut { offsets, lengths } = &column.fields;
        ColumnArg { data: &column.data, fields: SlicesArg { offsets, lengths } }
    }
}

impl From<ColumnRet> for ColumnOut {
    fn from(column: ColumnRet) -> ColumnOut {
        ColumnOut { data: column.data, fields: column.fields.into() }
    }
}

impl From<SlicesRet> for SlicesOut {
    fn from(slices: SlicesRet) -> SlicesOut {
        SlicesOut { offsets: slices.offsets, lengths: slices.lengths }
    }
}

impl From<OutputRet> for BatchOut {
    fn from(output: OutputRet) -> BatchOut {
        let headers =
            |h: HeadersRet| HeadersOut { counts: h.counts, names: h.names.into(), values: h.values.into() };
        BatchOut {
            source: output.source,
            data: output.data,
            keys: output.keys.map(SlicesOut::from),
            values: output.values.map(SlicesOut::from),
            timestamps: output.timestamps,
            headers: output.headers.map(headers),
            route: output.route,
        }
    }
}

impl From<FailureRet> for PluginError {
    fn from(failure: FailureRet) -> PluginError {
        match failure {
            FailureRet::Retry(reason) => PluginError::Retry(clipped(reason)),
            FailureRet::Fatal(reason) => PluginError::Fatal(clipped(reason)),
            FailureRet::Reject(rejected) => PluginError::Reject(
                rejected
                    .into_iter()
                    .map(|r| Rejection { index: r.index, reason: clipped(r.reason) })
                    .collect(),
            ),
        }
    }
}
