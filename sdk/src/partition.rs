use std::cell::RefCell;

use crate::batch::Record;
use crate::bindings::Batch;
use crate::config::Config;

/// Says which partition of its topic a record belongs to.
///
/// ```
/// use pelton_sdk::{Partitioner, Record, partition_of_key};
///
/// /// Records of important customers have the first partition for themselves.
/// #[derive(Default)]
/// struct Important;
///
/// impl Partitioner for Important {
///     fn partition(&mut self, record: Record<'_>, partitions: u32) -> u32 {
///         let key = record.key().unwrap_or_default();
///         if key.starts_with(b"gold-") || partitions == 1 {
///             return 0;
///         }
///         1 + partition_of_key(key, partitions - 1)
///     }
/// }
///
/// pelton_sdk::export_partitioner!(Important);
///
/// // The logic is tested natively:
/// use pelton_sdk::testing::{TestRecord, partitions};
/// let records = [TestRecord::default().with_key("gold-1"), TestRecord::default().with_key("1")];
/// let placed = partitions::<Important>(&[], &records, 4).unwrap();
/// assert!(placed[0] == 0 && placed[1] > 0);
/// ```
pub trait Partitioner: Default {
    /// Takes the settings. Called once, before anything else.
    ///
    /// # Errors
    /// A text for the person who deploys: the deployment is refused with it.
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let _ = config;
        Ok(())
    }

    /// The partition of a record: below `partitions`, which is at least 1. The same record and the same number of
    /// partitions must always give the same answer: instances come and go, and several run side by side.
    fn partition(&mut self, record: Record<'_>, partitions: u32) -> u32;

    /// Takes a whole batch, and answers a partition for each record. Implement it in place of
    /// [`partition`](Partitioner::partition) to work on columns.
    fn batch(&mut self, batch: &Batch, partitions: u32) -> Vec<u32> {
        Record::all(batch).map(|record| self.partition(record, partitions)).collect()
    }
}

/// Where Kafka's Java client, and what is compatible with it, puts a key by itself: murmur2. For the records that a
/// partitioner has no rule of its own for.
///
/// # Panics
/// If there are no partitions.
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Kafka's hash, by Austin Appleby, with the seed that Kafka uses.
fn murmur2(key: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ key.len() as u32;
    let mut words = key.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes(word.try_into().expect("four bytes")).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ (word ^ word >> 24).wrapping_mul(M);
    }
    if let rest @ [_, ..] = words.remainder() {
        for (i, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

/// The one instance of a plugin in a component.
#[doc(hidden)]
#[derive(Default)]
pub struct ExportedPartitioner<T>(RefCell<T>);

impl<T: Partitioner> ExportedPartitioner<T> {
    pub fn configure(&self, config: Vec<(String, String)>) -> Result<(), String> {
        crate::log::install_panic_hook();
        self.0.borrow_mut().configure(&Config::new(config))
    }

    pub fn partition(&self, batch: &Batch, partitions: u32) -> Vec<u32> {
        self.0.borrow_mut().batch(batch, partitions)
    }
}

/// Makes a [`Partitioner`] the plugin that this crate is. Does nothing outside of `wasm32`, so that the crate can be used
/// and tested natively.
#[macro_export]
macro_rules! export_partitioner {
    ($plugin:ty) => {
        // Natively, where a plugin is tested alone, nothing else makes one.
        #[cfg(not(target_arch = "wasm32"))]
        const _: fn() -> $plugin = <$plugin as ::std::default::Default>::default;
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            ::std::thread_local! {
                static PLUGIN: $crate::ExportedPartitioner<$plugin> = ::std::default::Default::default();
            }
            struct Component;
            impl $crate::bindings::partitioning::Guest for Component {
                fn configure(
                    config: ::std::vec::Vec<(::std::string::String, ::std::string::String)>,
                ) -> ::std::result::Result<(), ::std::string::String> {
                    PLUGIN.with(|plugin| plugin.configure(config))
                }
                fn partition(batch: $crate::Batch, partitions: u32) -> ::std::vec::Vec<u32> {
                    PLUGIN.with(|plugin| plugin.partition(&batch, partitions))
                }
            }
            $crate::bindings::partitioning::export_world!(
                Component with_types_in $crate::bindings::partitioning
            );
        };
    };
}

#[cfg(test)]
mod tests {
    use super::partition_of_key;

    /// As Kafka's Java client 4.4.0 placed them.
    #[test]
    fn keys_lie_where_clients_put_them() {
        for (key, partitions, expect) in [("pelton", 7, 5), ("pelton", 12, 11), ("", 7, 2), ("", 12, 9)] {
            assert_eq!(partition_of_key(key.as_bytes(), partitions), expect, "{key:?} of {partitions}");
        }
    }
}
