//! Each region has partitions of its own, and a key stays in one of them.

use pelton_sdk::{Config, Partitioner, Record, partition_of_key};

/// Divides the partitions among regions, in the order in which they are named, and the others.
#[derive(Default)]
struct Region {
    regions: Vec<Vec<u8>>,
    separator: Vec<u8>,
    header: String,
}

impl Region {
    /// The region of a record, by its place in the settings; that of the others comes last.
    fn region(&self, record: Record<'_>) -> usize {
        let name = if self.header.is_empty() {
            let key = record.key().unwrap_or_default();
            let end = key.windows(self.separator.len()).position(|bytes| bytes == self.separator);
            &key[..end.unwrap_or(key.len())]
        } else {
            record.header(&self.header).unwrap_or_default()
        };
        self.regions.iter().position(|region| region == name).unwrap_or(self.regions.len())
    }
}

impl Partitioner for Region {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let names = config.get("regions").unwrap_or_default().split(',').map(str::trim);
        self.regions = names.map(|name| name.as_bytes().to_vec()).collect();
        if self.regions.iter().any(Vec::is_empty) {
            return Err("regions: a name is empty; write them as `eu,us,asia`".to_owned());
        }
        if let Some(i) = (1..self.regions.len()).find(|i| self.regions[..*i].contains(&self.regions[*i])) {
            return Err(format!("regions: `{}` is there twice", String::from_utf8_lossy(&self.regions[i])));
        }
        self.separator = config.get("separator").unwrap_or("-").as_bytes().to_vec();
        if self.separator.is_empty() {
            return Err("separator is empty".to_owned());
        }
        self.header = config.get("header").unwrap_or_default().to_owned();
        Ok(())
    }

    fn partition(&mut self, record: Record<'_>, partitions: u32) -> u32 {
        let shares = self.regions.len() as u64 + 1;
        let begin = |share: u64| (share * u64::from(partitions) / shares) as u32;
        let region = self.region(record) as u64;
        let (first, next) = (begin(region), begin(region + 1));
        // With fewer partitions than shares, several of them have one together.
        let own = next.saturating_sub(first).max(1);
        first + partition_of_key(record.key().unwrap_or_default(), own)
    }
}

pelton_sdk::export_partitioner!(Region);

#[cfg(test)]
mod tests {
    use super::*;
    use pelton_sdk::testing::{RunError, TestRecord, partitions};

    fn placed(config: &[(&str, &str)], keys: &[String], count: u32) -> Vec<u32> {
        let records: Vec<_> = keys.iter().map(|key| TestRecord::default().with_key(key.as_str())).collect();
        partitions::<Region>(config, &records, count).unwrap()
    }

    #[test]
    fn regions_share_no_partition_where_there_are_enough() {
        let config = [("regions", "eu, us")];
        let keys: Vec<String> =
            ["eu-", "us-", "asia-"].iter().flat_map(|r| (0..100).map(move |n| format!("{r}{n}"))).collect();
        for count in [3, 6, 7, 100] {
            let placed = placed(&config, &keys, count);
            let seen: Vec<(u32, u32)> = (placed.chunks(100))
                .map(|of| (*of.iter().min().unwrap(), *of.iter().max().unwrap()))
                .collect();
            assert_eq!((seen[0].0, seen[2].1), (0, count - 1), "all are used: {seen:?}");
            assert!(seen[0].1 < seen[1].0 && seen[1].1 < seen[2].0, "{count}: {seen:?}");
        }
        for count in [1, 2] {
            assert!(placed(&config, &keys, count).iter().all(|placed| *placed < count));
        }
    }

    #[test]
    fn the_region_may_be_in_a_header() {
        let mut record = TestRecord::default().with_key("us-1");
        record.headers.push(("region".to_owned(), Some(b"eu".to_vec())));
        let config = [("regions", "us,eu"), ("header", "region")];
        assert_eq!(partitions::<Region>(&config, &[record], 3).unwrap(), [1]);
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (regions, why) in [("", "is empty"), ("eu,,us", "is empty"), ("eu,us,eu", "`eu` is there twice")]
        {
            let refused = partitions::<Region>(&[("regions", regions)], &[], 3);
            let Err(RunError::Configure(text)) = refused else { panic!("{regions}") };
            assert!(text.contains(why), "{text}");
        }
    }
}
