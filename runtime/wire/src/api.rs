//! Which APIs and versions there are: one table that everything else asks.

/// The versions of one API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ApiRange {
    /// The lowest version that is decoded and encoded.
    pub min_decoded: i16,
    /// The highest version.
    pub max: i16,
    /// The lowest version that is advertised. It is below [`min_decoded`](Self::min_decoded) for Produce alone:
    /// librdkafka up to 2.10 looks for version 0 before it believes that a broker takes compressed batches, and sends
    /// them uncompressed otherwise (KAFKA-18659).
    pub min_advertised: i16,
    /// The first version with compact lengths and tagged fields (KIP-482), if any.
    pub flexible_from: Option<i16>,
}

impl ApiRange {
    /// Whether this version can be decoded and encoded.
    pub const fn contains(&self, version: i16) -> bool {
        version >= self.min_decoded && version <= self.max
    }

    /// Whether this version has compact lengths and tagged fields.
    pub const fn is_flexible(&self, version: i16) -> bool {
        match self.flexible_from {
            Some(from) => version >= from,
            None => false,
        }
    }
}

/// Defines the keys and their ranges from one table.
macro_rules! apis {
    ($($name:ident = $key:literal, $min:literal..=$max:literal $(, flexible $flexible:literal)? $(, advertised $advertised:literal)?;)*) => {
        /// A request type of the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!("`", stringify!($name), "`, key ", stringify!($key), ".")]
                $name = $key,
            )*
        }

        impl ApiKey {
            /// Every API of this codec, by rising key. Which of them a broker serves is for the broker to say.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Kafka's name of the API.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// The API with this key; `None` if this codec has none.
            pub const fn from_key(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }
        }

        /// The versions of an API.
        pub const fn range(key: ApiKey) -> ApiRange {
            match key {
                $(ApiKey::$name => ApiRange {
                    min_decoded: $min,
                    max: $max,
                    min_advertised: or!($min $(, $advertised)?),
                    flexible_from: option!($($flexible)?),
                },)*
            }
        }
    };
}

macro_rules! or {
    ($usual:literal) => {
        $usual
    };
    ($usual:literal, $special:literal) => {
        $special
    };
}

macro_rules! option {
    () => {
        None
    };
    ($value:literal) => {
        Some($value)
    };
}

// The stable ranges of Kafka 4.2, and ApiVersions of 4.4. TxnOffsetCommit 6, DescribeLogDirs 5 and DeleteGroups 3 are
// of 4.4 too; InitProducerId 6 is unstable.
apis! {
    Produce = 0, 3..=13, flexible 9, advertised 0;
    Fetch = 1, 4..=18, flexible 12;
    ListOffsets = 2, 1..=11, flexible 6;
    Metadata = 3, 0..=13, flexible 9;
    OffsetCommit = 8, 2..=10, flexible 8;
    OffsetFetch = 9, 1..=10, flexible 6;
    FindCoordinator = 10, 0..=6, flexible 3;
    JoinGroup = 11, 0..=9, flexible 6;
    Heartbeat = 12, 0..=4, flexible 4;
    LeaveGroup = 13, 0..=5, flexible 4;
    SyncGroup = 14, 0..=5, flexible 4;
    DescribeGroups = 15, 0..=6, flexible 5;
    ListGroups = 16, 0..=5, flexible 3;
    ApiVersions = 18, 0..=5, flexible 3;
    CreateTopics = 19, 2..=7, flexible 5;
    DeleteTopics = 20, 1..=6, flexible 4;
    DeleteRecords = 21, 0..=2, flexible 2;
    InitProducerId = 22, 0..=5, flexible 2;
    OffsetForLeaderEpoch = 23, 2..=4, flexible 4;
    AddPartitionsToTxn = 24, 0..=5, flexible 3;
    AddOffsetsToTxn = 25, 0..=4, flexible 3;
    EndTxn = 26, 0..=5, flexible 3;
    WriteTxnMarkers = 27, 1..=2, flexible 1;
    TxnOffsetCommit = 28, 0..=5, flexible 3;
    DescribeAcls = 29, 1..=3, flexible 2;
    CreateAcls = 30, 1..=3, flexible 2;
    DeleteAcls = 31, 1..=3, flexible 2;
    DescribeConfigs = 32, 1..=4, flexible 4;
    AlterConfigs = 33, 0..=2, flexible 2;
    DescribeLogDirs = 35, 1..=4, flexible 2;
    CreatePartitions = 37, 0..=3, flexible 2;
    DeleteGroups = 42, 0..=2, flexible 2;
    ElectLeaders = 43, 0..=2, flexible 2;
    IncrementalAlterConfigs = 44, 0..=1, flexible 1;
    AlterPartitionReassignments = 45, 0..=1, flexible 0;
    ListPartitionReassignments = 46, 0..=0, flexible 0;
    OffsetDelete = 47, 0..=0;
    DescribeClientQuotas = 48, 0..=1, flexible 1;
    DescribeUserScramCredentials = 50, 0..=0, flexible 0;
    DescribeQuorum = 55, 0..=2, flexible 0;
    UpdateFeatures = 57, 0..=2, flexible 0;
    DescribeCluster = 60, 0..=2, flexible 0;
    DescribeProducers = 61, 0..=0, flexible 0;
    DescribeTransactions = 65, 0..=0, flexible 0;
    ListTransactions = 66, 0..=2, flexible 0;
    ListConfigResources = 74, 0..=1, flexible 0;
    DescribeTopicPartitions = 75, 0..=0, flexible 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_numbers_belong_together() {
        for &key in ApiKey::ALL {
            assert_eq!(ApiKey::from_key(key as i16), Some(key));
        }
        assert!(ApiKey::ALL.is_sorted());
        for unknown in [-1, 4, 7, 71, 92, i16::MAX, i16::MIN] {
            assert_eq!(ApiKey::from_key(unknown), None);
        }
    }

    #[test]
    fn ranges_are_well_formed() {
        for &key in ApiKey::ALL {
            let ApiRange { min_decoded, max, min_advertised, flexible_from } = range(key);
            assert!(0 <= min_advertised && min_advertised <= min_decoded && min_decoded <= max, "{key:?}");
            assert!(flexible_from.is_none_or(|from| from <= max), "{key:?}");
            if key != ApiKey::Produce {
                assert_eq!(min_advertised, min_decoded, "{key:?}");
            }
        }
    }
}
