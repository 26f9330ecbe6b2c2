use std::cell::RefCell;

use crate::batch::{NULL, Record};
use crate::bindings::{self, Batch, Column, Rejection, Slices};
use crate::config::Config;
use crate::stores::{column, strings};
use crate::transform::Failure;

/// Folds records into one value per key, or per window of a key. The value is at once the result that the node emits; the server keeps
/// it.
///
/// ```
/// use pelton_sdk::{Aggregator, Failure, Record};
///
/// /// The longest value of each key.
/// #[derive(Default)]
/// struct Longest;
///
/// impl Aggregator for Longest {
///     fn add(&mut self, value: &mut Vec<u8>, record: Record<'_>) -> Result<(), Failure> {
///         let other = record.value().unwrap_or_default();
///         if other.len() > value.len() {
///             *value = other.to_vec();
///         }
///         Ok(())
///     }
/// }
///
/// pelton_sdk::export_aggregator!(Longest);
///
/// // The logic is tested natively:
/// use pelton_sdk::testing::{AggregateRun, TestRecord};
/// let mut run = AggregateRun::<Longest>::new(&[]);
/// run.add("a", &TestRecord::value("abc")).unwrap();
/// assert_eq!(run.add("a", &TestRecord::value("ab")).unwrap(), b"abc");
/// ```
pub trait Aggregator: Default {
    /// Takes the settings. Called once, before anything else.
    ///
    /// # Errors
    /// A text for the person who deploys: the deployment is refused with it.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// The value of a group without records. Empty, unless this says otherwise.
    ///
    /// # Errors
    /// A text for the pipeline's status: it stops.
    fn create(&mut self) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }

    /// Adds a record to the value of its group. Its key is that of the group.
    ///
    /// # Errors
    /// How it failed. After [`Failure::Reject`] the other records are given again without it.
    fn add(&mut self, value: &mut Vec<u8>, record: Record<'_>) -> Result<(), Failure>;

    /// Takes a record out that was added before: where a table is aggregated, rows are replaced, and move to other groups.
    ///
    /// # Errors
    /// How it failed.
    fn subtract(&mut self, value: &mut Vec<u8>, record: Record<'_>) -> Result<(), Failure> {
        let _ = (value, record);
        Err(Failure::Fatal(
            "this aggregator cannot take records out again, so it is not for tables".to_owned(),
        ))
    }

    /// Makes one value of two of one key: sessions that meet. `value` is the earlier one.
    ///
    /// # Errors
    /// How it failed.
    fn merge(&mut self, value: &mut Vec<u8>, other: &[u8]) -> Result<(), Failure> {
        let _ = (value, other);
        Err(Failure::Fatal("this aggregator cannot merge values, so it is not for sessions".to_owned()))
    }
}

/// The one instance of a plugin in a component.
#[doc(hidden)]
#[derive(Default)]
pub struct ExportedAggregator<T>(RefCell<T>);

impl<T: Aggregator> ExportedAggregator<T> {
    pub fn configure(&self, config: Vec<(String, String)>) -> Result<(), String> {
        crate::log::install_panic_hook();
        self.0.borrow_mut().configure(&Config::new(config))
    }

    pub fn create(&self) -> Result<Vec<u8>, String> {
        self.0.borrow_mut().create()
    }

    pub fn add(&self, values: &Column, batch: &Batch, groups: &[u32]) -> Result<Column, bindings::Failure> {
        self.fold(values, batch, groups, T::add)
    }

    pub fn subtract(
        &self,
        values: &Column,
        batch: &Batch,
        groups: &[u32],
    ) -> Result<Column, bindings::Failure> {
        self.fold(values, batch, groups, T::subtract)
    }

    fn fold(
        &self,
        values: &Column,
        batch: &Batch,
        groups: &[u32],
        fold: impl Fn(&mut T, &mut Vec<u8>, Record<'_>) -> Result<(), Failure>,
    ) -> Result<Column, bindings::Failure> {
        let mut plugin = self.0.borrow_mut();
        let mut now: Vec<Vec<u8>> = strings(values).map(Option::unwrap_or_default).collect();
        let mut out = with_capacity(groups.len(), values.data.len());
        let mut rejected = Vec::new();
        for (record, group) in Record::all(batch).zip(groups) {
            let value = &mut now[*group as usize];
            match fold(&mut plugin, value, record) {
                Ok(()) => push(&mut out, value),
                Err(Failure::Reject(reason)) => {
                    rejected.push(Rejection { index: record.index() as u32, reason });
                }
                Err(failure) => return Err(whole(failure)),
            }
        }
        if rejected.is_empty() { Ok(out) } else { Err(bindings::Failure::Reject(rejected)) }
    }

    pub fn merge(&self, left: &Column, right: &Column) -> Result<Column, bindings::Failure> {
        let mut plugin = self.0.borrow_mut();
        let mut merged = Vec::new();
        for (left, right) in strings(left).zip(strings(right)) {
            let value = match (left, right) {
                (Some(mut value), Some(other)) => {
                    plugin.merge(&mut value, &other).map_err(whole)?;
                    value
                }
                (one, other) => one.or(other).unwrap_or_default(),
            };
            merged.push(value);
        }
        Ok(column(merged.iter().map(|value| Some(&value[..]))))
    }
}

/// A failure of the whole call.
fn whole(failure: Failure) -> bindings::Failure {
    match failure {
        Failure::Retry(reason) => bindings::Failure::Retry(reason),
        Failure::Fatal(reason) | Failure::Reject(reason) => bindings::Failure::Fatal(reason),
    }
}

fn with_capacity(fields: usize, bytes: usize) -> Column {
    let slices = Slices { offsets: Vec::with_capacity(fields), lengths: Vec::with_capacity(fields) };
    Column { data: Vec::with_capacity(bytes), fields: slices }
}

fn push(column: &mut Column, field: &[u8]) {
    debug_assert!((field.len() as u64) < u64::from(NULL), "a memory of 32 bits");
    column.fields.offsets.push(column.data.len() as u32);
    column.fields.lengths.push(field.len() as u32);
    column.data.extend_from_slice(field);
}

/// Makes an [`Aggregator`] the plugin that this crate is. Does nothing outside of `wasm32`, so that the crate can be used
/// and tested natively.
#[macro_export]
macro_rules! export_aggregator {
    ($plugin:ty) => {
        // Natively, where a plugin is tested alone, nothing else makes one.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $plugin = <$plugin as ::std::default::Default>::default;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::ExportedAggregator<$plugin> = ::std::default::Default::default();
            }
            type Values = ::std::result::Result<$crate::bindings::Column, $crate::bindings::Failure>;
            struct Component;
            impl $crate::bindings::aggregating::Guest for Component {
                fn configure(
                    config: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    PLUGIN.with(|plugin| plugin.configure(config))
                }
                fn create() -> ::std::result::Result<::std::vec::Vec<u8>, ::std::string::String> {
                    PLUGIN.with(|plugin| plugin.create())
                }
                fn add(
                    values: $crate::bindings::Column,
                    batch: $crate::Batch,
                    groups: ::std::vec::Vec<u32>,
                ) -> Values {
                    PLUGIN.with(|plugin| plugin.add(&values, &batch, &groups))
                }
                fn subtract(
                    values: $crate::bindings::Column,
                    batch: $crate::Batch,
                    groups: ::std::vec::Vec<u32>,
                ) -> Values {
                    PLUGIN.with(|plugin| plugin.subtract(&values, &batch, &groups))
                }
                fn merge(left: $crate::bindings::Column, right: $crate::bindings::Column) -> Values {
                    PLUGIN.with(|plugin| plugin.merge(&left, &right))
                }
            }
            $crate::bindings::aggregating::export_world!(
                Component with_types_in $crate::bindings::aggregating
            );
        };
    };
}
