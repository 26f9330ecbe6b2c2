use std::cell::RefCell;

use crate::batch::Record;
use crate::bindings::{self, Batch, Output, Rejection};
use crate::config::Config;
use crate::out::Out;

/// A transform: records in, records out.
pub trait Transform: Default {
    /// Takes the settings. Called once, before anything else.
    ///
    /// # Errors
    /// A text for the person who deploys: the deployment is refused with it.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// Takes one record and emits any number of records. A record that is not emitted is filtered.
    ///
    /// # Errors
    /// How it failed. After [`Failure::Reject`] the other records of the batch are still taken.
    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure>;

    /// Takes a whole batch. Implement it in place of [`record`](Transform::record) to work on columns.
    ///
    /// # Errors
    /// How it failed. Nothing of the batch is emitted then.
    fn batch(&mut self, batch: &Batch) -> Result<Output, bindings::Failure> {
        let mut out = Out::new(batch);
        let mut rejected = Vec::new();
        for record in Record::all(batch) {
            match self.record(record, &mut out) {
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

/// How a record failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// This record cannot be processed, now or later. What happens to it is `on_error` of the pipeline.
    Reject(String),
    /// Give me the same batch again later.
    Retry(String),
    /// Stop the pipeline.
    Fatal(String),
}

impl Failure {
    /// This record cannot be processed; the reason goes to the pipeline's status or to the dead letter.
    pub fn reject(reason: impl Into<String>) -> Failure {
        Failure::Reject(reason.into())
    }
}

/// The one instance of a plugin in a component.
#[doc(hidden)]
#[derive(Default)]
pub struct Exported<T>(RefCell<T>);

impl<T: Transform> Exported<T> {
    pub fn configure(&self, config: Vec<(String, String)>) -> Result<(), String> {
        crate::log::install_panic_hook();
        self.0.borrow_mut().configure(&Config::new(config))
    }

    pub fn process(&self, batch: &Batch) -> Result<Output, bindings::Failure> {
        self.0.borrow_mut().batch(batch)
    }
}

/// Makes a [`Transform`] the plugin that this crate is. Does nothing outside of `wasm32`, so that the crate can be used
/// and tested natively.
#[macro_export]
macro_rules! export_transform {
    ($plugin:ty) => {
        // Natively, where a plugin is tested alone, nothing else makes one.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $plugin = <$plugin as ::std::default::Default>::default;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::Exported<$plugin> = ::std::default::Default::default();
            }
            struct Component;
            impl $crate::bindings::Guest for Component {
                fn configure(
                    config: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    PLUGIN.with(|plugin| plugin.configure(config))
                }
                fn process(
                    batch: $crate::Batch,
                ) -> ::std::result::Result<$crate::Output, $crate::bindings::Failure> {
                    PLUGIN.with(|plugin| plugin.process(&batch))
                }
            }
    $crate::bindings::export_world!(Component with_types_in $crate::bindings);
        };
    };
}
