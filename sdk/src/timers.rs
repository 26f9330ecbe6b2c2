use std::cell::RefCell;

use crate::batch::{NULL, Record};
use crate::bindings::{self, Batch, Column, Output, Rejection, Slices};
use crate::config::Config;
use crate::out::Out;
use crate::stores::{Host, Reads, Stores, column, strings};
use crate::transform::Failure;

/// Whose time a timer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TimerDomain {
    /// The largest timestamp of the records that came in this partition. It fires before the record that brings it there.
    StreamTime,
    /// The clock of the machine.
    WallClock,
}

/// A timer that is due.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timer {
    /// Whose time it waited for.
    pub domain: TimerDomain,
    /// When it was due, in milliseconds since 1970-01-01 UTC.
    pub at: i64,
    /// Its name.
    pub name: Vec<u8>,
}

/// What a plugin's timers are told: the server, or a list in tests.
#[doc(hidden)]
pub trait TimerHost {
    fn set(&mut self, domain: TimerDomain, names: &Column, at: &[i64]);
    fn cancel(&mut self, domain: TimerDomain, names: &Column);
    fn clock(&mut self) -> i64;
}

/// The timers of the node. What is set and cancelled goes to the server at the end of the call, all at once, and is dropped if the call
/// fails.
pub struct Timers<'h> {
    host: &'h mut dyn TimerHost,
    /// In order.
    asked: Vec<(TimerDomain, Vec<u8>, Option<i64>)>,
}

impl<'h> Timers<'h> {
    #[doc(hidden)]
    pub fn new(host: &'h mut dyn TimerHost) -> Timers<'h> {
        Timers { host, asked: Vec::new() }
    }

    /// Sets a timer, due at `at` (milliseconds since 1970-01-01 UTC). One of this name in the domain is moved.
    pub fn set(&mut self, domain: TimerDomain, name: impl AsRef<[u8]>, at: i64) {
        self.asked.push((domain, name.as_ref().to_vec(), Some(at)));
    }

    /// Takes a timer away, if it is set.
    pub fn cancel(&mut self, domain: TimerDomain, name: impl AsRef<[u8]>) {
        self.asked.push((domain, name.as_ref().to_vec(), None));
    }

    /// The clock of the machine, as it was when the call began. Only timers should depend on it: records that are processed again see
    /// another one.
    pub fn clock(&mut self) -> i64 {
        self.host.clock()
    }

    #[doc(hidden)]
    pub fn flush(&mut self) {
        let asked = std::mem::take(&mut self.asked);
        // What is of one kind goes together, in order.
        for asked in asked.chunk_by(|a, b| (a.0, a.2.is_some()) == (b.0, b.2.is_some())) {
            let names = column(asked.iter().map(|(_, name, _)| Some(&name[..])));
            let at: Vec<i64> = asked.iter().filter_map(|(.., at)| *at).collect();
            let domain = asked[0].0;
            if at.is_empty() { self.host.cancel(domain, &names) } else { self.host.set(domain, &names, &at) }
        }
    }
}

/// Collects what timers emit.
pub struct Emit {
    output: Output,
}

impl Emit {
    fn new() -> Emit {
        let slices = || Slices { offsets: Vec::new(), lengths: Vec::new() };
        let (keys, values) = (Some(slices()), Some(slices()));
        let (timestamps, route) = (Some(Vec::new()), Some(Vec::new()));
        let output =
            Output { source: Vec::new(), data: Vec::new(), keys, values, timestamps, headers: None, route };
        Emit { output }
    }

    /// Emits a record to the first output.
    pub fn record(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) {
        self.record_to(0, key, value, timestamp);
    }

    /// Emits a record to an output: an index into `outputs` of `plugin.toml`.
    pub fn record_to(&mut self, output: u32, key: Option<&[u8]>, value: Option<&[u8]>, timestamp: i64) {
        let Output { source, data, keys, values, timestamps, route, .. } = &mut self.output;
        source.push(u32::MAX);
        for (column, field) in [(keys, key), (values, value)] {
            let column = column.get_or_insert_with(|| Slices { offsets: Vec::new(), lengths: Vec::new() });
            column.offsets.push(data.len() as u32);
            column.lengths.push(field.map_or(NULL, |field| field.len() as u32));
            data.extend_from_slice(field.unwrap_or_default());
        }
        timestamps.get_or_insert_default().push(timestamp);
        route.get_or_insert_default().push(output);
    }
}

/// A transform with state that can also act without a record, when stream time or the clock has passed.
///
/// ```
/// use pelton_sdk::{Emit, Failure, Out, Record, Stores, Timer, TimerDomain, TimerTransform, Timers};
///
/// /// Says of each key that a minute has passed without a record.
/// #[derive(Default)]
/// struct Quiet;
///
/// impl TimerTransform for Quiet {
///     fn record(
///         &mut self,
///         record: Record<'_>,
///         _: &mut Stores<'_>,
///         timers: &mut Timers<'_>,
///         _: &mut Out<'_>,
///     ) -> Result<(), Failure> {
///         let key = record.key().ok_or_else(|| Failure::reject("there is no key"))?;
///         timers.set(TimerDomain::StreamTime, key, record.timestamp() + 60_000);
///         Ok(())
///     }
///
///     fn fire(
///         &mut self,
///         timer: &Timer,
///         _: &mut Stores<'_>,
///         _: &mut Timers<'_>,
///         emit: &mut Emit,
///     ) -> Result<(), Failure> {
///         emit.record(Some(&timer.name), Some(b"quiet"), timer.at);
///         Ok(())
///     }
/// }
///
/// pelton_sdk::export_timer_transform!(Quiet);
///
/// // The logic is tested natively: records move stream time, and the clock goes on when it is told to.
/// use pelton_sdk::testing::{TestRecord, TimerRun};
/// let mut run = TimerRun::<Quiet>::new(&[]);
/// let at = |key: &str, timestamp| TestRecord { timestamp, ..TestRecord::value("x").with_key(key) };
/// assert_eq!(run.give(&[at("a", 0), at("b", 30_000)]).unwrap(), []);
/// assert_eq!(run.give(&[at("b", 60_000)]).unwrap()[0].key.as_deref(), Some(&b"a"[..]));
/// ```
pub trait TimerTransform: Default {
    /// Takes the settings. Called once, before anything else. Stores and timers cannot be used here.
    ///
    /// # Errors
    /// A text for the person who deploys: the deployment is refused with it.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// As [`StateTransform::reads`](crate::StateTransform::reads).
    fn reads(&mut self, record: Record<'_>, reads: &mut Reads) {
        let _ = (record, reads);
    }

    /// Takes one record and emits any number of records.
    ///
    /// # Errors
    /// As [`StateTransform::record`](crate::StateTransform::record).
    fn record(
        &mut self,
        record: Record<'_>,
        stores: &mut Stores<'_>,
        timers: &mut Timers<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Failure>;

    /// A timer is due, and is not set any more.
    ///
    /// # Errors
    /// How it failed. [`Failure::Reject`] stands for this timer; `on_error` of the pipeline decides about it.
    fn fire(
        &mut self,
        timer: &Timer,
        stores: &mut Stores<'_>,
        timers: &mut Timers<'_>,
        emit: &mut Emit,
    ) -> Result<(), Failure>;
}

/// The one instance of a plugin in a component.
#[doc(hidden)]
#[derive(Default)]
pub struct ExportedTimers<T>(RefCell<T>);

impl<T: TimerTransform> ExportedTimers<T> {
    pub fn configure(&self, config: Vec<(String, String)>) -> Result<(), String> {
        crate::log::install_panic_hook();
        self.0.borrow_mut().configure(&Config::new(config))
    }

    pub fn process(
        &self,
        batch: &Batch,
        host: &mut dyn Host,
        timers: &mut dyn TimerHost,
    ) -> Result<Output, bindings::Failure> {
        let (mut stores, mut timers) = (Stores::new(host), Timers::new(timers));
        let (mut plugin, mut reads) = (self.0.borrow_mut(), Reads::default());
        Record::all(batch).for_each(|record| plugin.reads(record, &mut reads));
        stores.read_ahead(reads);
        let (mut out, mut rejected) = (Out::new(batch), Vec::new());
        for record in Record::all(batch) {
            match plugin.record(record, &mut stores, &mut timers, &mut out) {
                Ok(()) => {}
                Err(Failure::Reject(reason)) => {
                    rejected.push(Rejection { index: record.index() as u32, reason });
                }
                Err(Failure::Retry(reason)) => return Err(bindings::Failure::Retry(reason)),
                Err(Failure::Fatal(reason)) => return Err(bindings::Failure::Fatal(reason)),
            }
        }
        if !rejected.is_empty() {
            return Err(bindings::Failure::Reject(rejected));
        }
        stores.flush();
        timers.flush();
        Ok(out.finish())
    }

    pub fn fire(
        &self,
        domain: TimerDomain,
        (names, at): (&Column, &[i64]),
        host: &mut dyn Host,
        timers: &mut dyn TimerHost,
    ) -> Result<Output, bindings::Failure> {
        let (mut stores, mut timers) = (Stores::new(host), Timers::new(timers));
        let (mut plugin, mut emit) = (self.0.borrow_mut(), Emit::new());
        for ((index, name), at) in (0..).zip(strings(names)).zip(at) {
            let timer = Timer { domain, at: *at, name: name.unwrap_or_default() };
            match plugin.fire(&timer, &mut stores, &mut timers, &mut emit) {
                Ok(()) => {}
                Err(Failure::Reject(reason)) => {
                    return Err(bindings::Failure::Reject(vec![Rejection { index, reason }]));
                }
                Err(Failure::Retry(reason)) => return Err(bindings::Failure::Retry(reason)),
                Err(Failure::Fatal(reason)) => return Err(bindings::Failure::Fatal(reason)),
            }
        }
        stores.flush();
        timers.flush();
        Ok(emit.output)
    }
}

/// The server.
#[cfg(target_arch = "wasm32")]
impl TimerHost for crate::stores::Server {
    fn set(&mut self, domain: TimerDomain, names: &Column, at: &[i64]) {
        imported::set(domain.into(), names, at);
    }

    fn cancel(&mut self, domain: TimerDomain, names: &Column) {
        imported::cancel(domain.into(), names);
    }

    fn clock(&mut self) -> i64 {
        imported::clock()
    }
}

#[cfg(target_arch = "wasm32")]
use crate::bindings::with_timers::pelton::plugin::timers as imported;

impl From<TimerDomain> for bindings::with_timers::TimeDomain {
    fn from(domain: TimerDomain) -> Self {
        match domain {
            TimerDomain::StreamTime => bindings::with_timers::TimeDomain::StreamTime,
            TimerDomain::WallClock => bindings::with_timers::TimeDomain::WallClock,
        }
    }
}

impl From<bindings::with_timers::TimeDomain> for TimerDomain {
    fn from(domain: bindings::with_timers::TimeDomain) -> TimerDomain {
        match domain {
            bindings::with_timers::TimeDomain::StreamTime => TimerDomain::StreamTime,
            bindings::with_timers::TimeDomain::WallClock => TimerDomain::WallClock,
        }
    }
}

/// Makes a [`TimerTransform`] the plugin that this crate is. Does nothing outside of `wasm32`, so that the crate can be used
/// and tested natively.
#[macro_export]
macro_rules! export_timer_transform {
    ($plugin:ty) => {
        // Natively, where a plugin is tested alone, nothing else makes one.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $plugin = <$plugin as ::std::default::Default>::default;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::ExportedTimers<$plugin> = ::std::default::Default::default();
            }
            struct Component;
            impl $crate::bindings::with_timers::Guest for Component {
                fn configure(
                    config: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    PLUGIN.with(|plugin| plugin.configure(config))
                }
                fn process(
                    batch: $crate::Batch,
                ) -> ::std::result::Result<$crate::Output, $crate::bindings::Failure> {
                    PLUGIN.with(|plugin| plugin.process(&batch, &mut $crate::Server, &mut $crate::Server))
                }
                fn fire(
                    domain: $crate::bindings::with_timers::TimeDomain,
                    names: $crate::bindings::Column,
                    at: ::std::vec::Vec<i64>,
                ) -> ::std::result::Result<$crate::Output, $crate::bindings::Failure> {
                    let due = (&names, &at[..]);
                    PLUGIN.with(|plugin| {
                        plugin.fire(domain.into(), due, &mut $crate::Server, &mut $crate::Server)
                    })
                }
            }
            $crate::bindings::with_timers::export_world!(
                Component with_types_in $crate::bindings::with_timers
            );
        };
    };
}
