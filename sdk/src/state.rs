use std::cell::RefCell;

use crate::batch::Record;
use crate::bindings::{self, Batch, Output, Rejection};
use crate::config::Config;
use crate::out::Out;
use crate::stores::{Reads, Stores};
use crate::transform::Failure;

/// A transform that keeps something between records, in the stores of its node. What it writes is part of the pipeline's
/// transaction: it is there if and only if what it emitted is.
///
/// ```
/// use pelton_sdk::{Failure, Out, Reads, Record, StateTransform, Stores};
///
/// /// Numbers the records of each key.
/// #[derive(Default)]
/// struct Number;
///
/// impl StateTransform for Number {
///     fn reads(&mut self, record: Record<'_>, reads: &mut Reads) {
///         reads.key("numbers", record.key().unwrap_or_default());
///     }
///
///     fn record(&mut self, record: Record<'_>, stores: &mut Stores<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
///         let key = record.key().ok_or_else(|| Failure::reject("there is no key"))?;
///         let last = stores.get("numbers", key).and_then(|bytes| Some(u64::from_be_bytes(*bytes.as_array()?)));
///         let number = last.unwrap_or(0) + 1;
///         stores.put("numbers", key, number.to_be_bytes());
///         out.value(record, number.to_string());
///         Ok(())
///     }
/// }
///
/// pelton_sdk::export_state_transform!(Number);
///
/// // The logic is tested natively, with stores that stay from batch to batch:
/// use pelton_sdk::testing::{StateRun, TestRecord};
/// let mut run = StateRun::<Number>::new(&[]).with_store("numbers");
/// let a = || TestRecord::value("x").with_key("a");
/// assert_eq!(run.give(&[a(), a()]).unwrap()[1].text(), "2");
/// assert_eq!(run.give(&[a()]).unwrap()[0].text(), "3");
/// ```
pub trait StateTransform: Default {
    /// Takes the settings. Called once, before anything else. Stores cannot be used here.
    ///
    /// # Errors
    /// A text for the person who deploys: the deployment is refused with it.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// Names the keys that [`record`](StateTransform::record) will read, so that the server is asked for those of a whole batch at
    /// once. What is not named is found all the same, with a call of its own.
    fn reads(&mut self, record: Record<'_>, reads: &mut Reads) {
        let _ = (record, reads);
    }

    /// Takes one record and emits any number of records.
    ///
    /// # Errors
    /// How it failed. After [`Failure::Reject`] the other records of the batch are given again without it, and what was written is
    /// dropped.
    fn record(
        &mut self,
        record: Record<'_>,
        stores: &mut Stores<'_>,
        out: &mut Out<'_>,
    ) -> Result<(), Failure>;

    /// Takes a whole batch. Implement it in place of [`record`](StateTransform::record) to work on columns.
    ///
    /// # Errors
    /// How it failed. Nothing of the batch is emitted or written then.
    fn batch(&mut self, batch: &Batch, stores: &mut Stores<'_>) -> Result<Output, bindings::Failure> {
        let mut reads = Reads::default();
        Record::all(batch).for_each(|record| self.reads(record, &mut reads));
        stores.read_ahead(reads);
        let mut out = Out::new(batch);
        let mut rejected = Vec::new();
        for record in Record::all(batch) {
            match self.record(record, stores, &mut out) {
                Ok(()) => {}
                Err(Failure::Reject(reason)) => {
                    rejected.push(Rejection { index: record.index() as u32, reason });
                }
                Err(Failure::Retry(reason)) => return Err(bindings::Failure::Retry(reason)),
                Err(Failure::Fatal(reason)) => return Err(bindings::Failure::Fatal(reason)),
            }
        }
        if rejected.is_empty() { Ok(out.finish()) } else { Err(bindings::Failure::Reject(rejected)) }
    }
}

/// The one instance of a plugin in a component.
#[doc(hidden)]
#[derive(Default)]
pub struct ExportedState<T>(RefCell<T>);

impl<T: StateTransform> ExportedState<T> {
    pub fn configure(&self, config: Vec<(String, String)>) -> Result<(), String> {
        crate::log::install_panic_hook();
        self.0.borrow_mut().configure(&Config::new(config))
    }

    pub(crate) fn with<R>(&self, run: impl FnOnce(&mut T) -> R) -> R {
        run(&mut self.0.borrow_mut())
    }

    pub fn process(
        &self,
        batch: &Batch,
        host: &mut dyn crate::stores::Host,
    ) -> Result<Output, bindings::Failure> {
        let mut stores = Stores::new(host);
        let output = self.0.borrow_mut().batch(batch, &mut stores)?;
        stores.flush();
        Ok(output)
    }
}

/// Makes a [`StateTransform`] the plugin that this crate is. Does nothing outside of `wasm32`, so that the crate can be used
/// and tested natively.
#[macro_export]
macro_rules! export_state_transform {
    ($plugin:ty) => {
        // Natively, where a plugin is tested alone, nothing else makes one.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $plugin = <$plugin as ::std::default::Default>::default;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::ExportedState<$plugin> = ::std::default::Default::default();
            }
            struct Component;
            impl $crate::bindings::with_state::Guest for Component {
                fn configure(
                    config: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    PLUGIN.with(|plugin| plugin.configure(config))
                }
                fn process(
                    batch: $crate::Batch,
                ) -> ::std::result::Result<$crate::Output, $crate::bindings::Failure> {
                    PLUGIN.with(|plugin| plugin.process(&batch, &mut $crate::Server))
                }
            }
            $crate::bindings::with_state::export_world!(
                Component with_types_in $crate::bindings::with_state
            );
        };
    };
}
