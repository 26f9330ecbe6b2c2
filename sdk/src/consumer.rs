use std::cell::RefCell;

use crate::batch::Record;
use crate::bindings::Batch;
use crate::config::Config;

pub(crate) use crate::bindings::consuming::pelton::plugin::consuming::Unfinished;

pub use crate::bindings::consuming::pelton::plugin::consuming::Order;

/// Why a record is not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undone {
    /// It can never be done. `on_error` of the pipeline decides what happens to it.
    Never(String),
    /// Give it again, not before so many milliseconds have passed (0: as `on_error` of the pipeline says, which also says how
    /// often).
    Again(u32, String),
    /// Stop the pipeline.
    Fatal(String),
}

impl Undone {
    /// It can never be done; the reason goes to the pipeline's status or to the dead letter.
    pub fn never(reason: impl Into<String>) -> Undone {
        Undone::Never(reason.into())
    }

    /// Give it again, when the pipeline's retry says.
    pub fn again(reason: impl Into<String>) -> Undone {
        Undone::Again(0, reason.into())
    }
}

/// The end of a pipeline: takes records and gives none. It reaches nothing but the log; one that sends is an
/// [`HttpConsumer`](crate::HttpConsumer).
///
/// A record is given at least once: again after a failure or a restart. [`Record::idempotency_key`] is the same each time.
///
/// ```
/// use pelton_sdk::{Consumer, Record, Undone};
///
/// /// Says of each order that is large that it is.
/// #[derive(Default)]
/// struct Watch;
///
/// impl Consumer for Watch {
///     fn record(&mut self, record: Record<'_>) -> Result<(), Undone> {
///         let value = record.value().unwrap_or_default();
///         let amount = std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok());
///         let amount = amount.ok_or_else(|| Undone::never("the value is no amount"))?;
///         if amount > 1_000 {
///             pelton_sdk::log::warn(&format!("{}: {amount}", record.idempotency_key()));
///         }
///         Ok(())
///     }
/// }
///
/// pelton_sdk::export_consumer!(Watch);
///
/// // The logic is tested natively: what is not done, by index.
/// use pelton_sdk::testing::{TestRecord, consume};
/// let undone = consume::<Watch>(&[], &[TestRecord::value("5"), TestRecord::value("much")]).unwrap();
/// assert_eq!(undone, [(1, Undone::never("the value is no amount"))]);
/// ```
pub trait Consumer: Default {
    /// Takes the settings. Called once, before anything else.
    ///
    /// # Errors
    /// A text for the person who deploys: the deployment is refused with it.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// Does what is to be done about one record.
    ///
    /// # Errors
    /// Why it is not done.
    fn record(&mut self, record: Record<'_>) -> Result<(), Undone>;

    /// Takes a whole batch, and names what is not done of it. With [`Order::Whole`] nothing behind a record that is not done may be
    /// done. Implement it in place of [`record`](Consumer::record) to do many at once.
    ///
    /// # Errors
    /// Why the pipeline must stop.
    fn batch(&mut self, batch: &Batch, order: Order) -> Result<Vec<Unfinished>, String> {
        let mut unfinished = Unfinishing::new(order);
        for record in Record::all(batch) {
            if !unfinished.waits(record) {
                let done = self.record(record);
                unfinished.note(record, done)?;
            }
        }
        Ok(unfinished.all)
    }
}

/// What is not done of a batch.
pub(crate) struct Unfinishing {
    order: Order,
    pub(crate) all: Vec<Unfinished>,
}

impl Unfinishing {
    pub(crate) fn new(order: Order) -> Unfinishing {
        Unfinishing { order, all: Vec::new() }
    }

    /// Whether a record has to wait for one before it; then it is noted as that.
    pub(crate) fn waits(&mut self, record: Record<'_>) -> bool {
        let Some(first) = self.all.first().filter(|_| self.order == Order::Whole) else { return false };
        let reason = format!("record {} of the call is not done", first.index);
        self.all.push(Unfinished { index: record.index() as u32, reason, again: Some(0) });
        true
    }

    pub(crate) fn note(&mut self, record: Record<'_>, done: Result<(), Undone>) -> Result<(), String> {
        let index = record.index() as u32;
        match done {
            Ok(()) => {}
            Err(Undone::Never(reason)) => self.all.push(Unfinished { index, reason, again: None }),
            Err(Undone::Again(after, reason)) => {
                self.all.push(Unfinished { index, reason, again: Some(after) });
            }
            Err(Undone::Fatal(reason)) => return Err(reason),
        }
        Ok(())
    }
}

/// The one instance of a plugin in a component.
#[doc(hidden)]
#[derive(Default)]
pub struct ExportedConsumer<T>(RefCell<T>);

impl<T: Consumer> ExportedConsumer<T> {
    pub fn configure(&self, config: Vec<(String, String)>) -> Result<(), String> {
        crate::log::install_panic_hook();
        self.0.borrow_mut().configure(&Config::new(config))
    }

    pub fn consume(&self, batch: &Batch, order: Order) -> Result<Vec<Unfinished>, String> {
        self.0.borrow_mut().batch(batch, order)
    }
}

/// Makes a [`Consumer`] the plugin that this crate is. Does nothing outside of `wasm32`, so that the crate can be used and tested
/// natively.
#[macro_export]
macro_rules! export_consumer {
    ($plugin:ty) => {
        $crate::export_any_consumer!($plugin, ExportedConsumer, consuming);
    };
}

/// What [`export_consumer`](crate::export_consumer) and [`export_http_consumer`](crate::export_http_consumer) have in common: the plugin,
/// what calls it, its world, and what else it is given in a call.
#[doc(hidden)]
#[macro_export]
macro_rules! export_any_consumer {
    ($plugin:ty, $exported:ident, $world:ident $(, $given:expr)?) => {
        // Natively, where a plugin is tested alone, nothing else makes one.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $plugin = <$plugin as ::std::default::Default>::default;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::$exported<$plugin> = ::std::default::Default::default();
            }
            struct Component;
            impl $crate::bindings::$world::Guest for Component {
                fn configure(
                    config: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    PLUGIN.with(|plugin| plugin.configure(config))
                }
                fn consume(
                    batch: $crate::Batch,
                    order: $crate::Order,
                ) -> ::std::result::Result<
                    ::std::vec::Vec<$crate::bindings::consuming::Unfinished>,
                    ::std::string::String,
                > {
                    PLUGIN.with(|plugin| plugin.consume(&batch, order $(, &mut $given)?))
                }
            }
            $crate::bindings::$world::export_world!(Component with_types_in $crate::bindings::$world);
        };
    };
}
