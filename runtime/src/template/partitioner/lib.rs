//! A partitioner: says which partition of its topic each record goes to.

use pelton_sdk::{Partitioner, Record, partition_of_key};

/// Keys that begin alike, up to the first `-`, lie in one partition: `eu-17` beside `eu-4`.
#[derive(Default)]
struct Plugin;

impl Partitioner for Plugin {
    fn partition(&mut self, record: Record<'_>, partitions: u32) -> u32 {
        let key = record.key().unwrap_or_default();
        let region = key.split(|byte| *byte == b'-').next().unwrap_or_default();
        partition_of_key(region, partitions)
    }
}

pelton_sdk::export_partitioner!(Plugin);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{TestRecord, partitions};

    #[test]
    fn a_region_stays_together() {
        let records = ["eu-1", "us-1", "eu-2"].map(|key| TestRecord::default().with_key(key));
        let placed = partitions::<Plugin>(&[], &records, 12).unwrap();
        assert_eq!(placed[0], placed[2]);
        assert_ne!(placed[0], placed[1]);
    }
}
