//! Every setting a topic can have: the one table from which validation, DescribeConfigs and the documentation are made.
//! Names, defaults and meaning are Kafka's; what starts with `pelton.` is ours, and a default that differs says why.

use std::collections::BTreeMap;

use crate::config::{ConfigError, nearest};

/// Settings of a topic by name, as text: what its creator set, without defaults.
pub type Overrides = BTreeMap<String, String>;

/// What kind of value a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number from low to high, 32 bits on the wire of DescribeConfigs.
    Int(i64, i64),
    /// A whole number from low to high, 64 bits.
    Long(i64, i64),
    /// A fraction from low to high.
    Double(f64, f64),
    /// `true` or `false`.
    Bool,
    /// Exactly this boolean: the other one asks for something a single broker does not have.
    Always(bool),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A comma separated list of these words, at least one.
    ListOf(&'static [&'static str]),
    /// A comma separated list of anything, or nothing.
    AnyList,
}

/// One setting of a topic.
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// The broker's setting that gives the default.
    pub broker_key: &'static str,
    /// The default, as text.
    pub default: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// What it does here.
    pub meaning: &'static str,
}

/// How soon an append of this topic survives a power cut, and what an acknowledgement waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Acknowledged and visible once the journal's group sync covers it.
    Group,
    /// Acknowledged at once, synced within `flush.ms`.
    Interval,
    /// Acknowledged at once, synced when the operating system or a checkpoint does it.
    Os,
}

/// Whose compression a stored batch has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// The producer's; batches are stored as they came.
    Producer,
    /// This one; a batch with another codec is repacked.
    Fixed(pelton_wire::record::Codec),
}

/// What the settings of one topic come to, defaults included.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    /// `cleanup.policy` has `compact`.
    pub compact: bool,
    /// `compression.type`.
    pub compression: CompressionType,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: i32,
    /// `max.message.bytes`: largest batch, header included.
    pub max_message_bytes: i32,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
    /// `min.insync.replicas`.
    pub min_insync_replicas: i32,
    /// `pelton.durability`.
    pub durability: Durability,
    /// `retention.bytes`; `None` is no limit.
    pub retention_bytes: Option<u64>,
    /// `retention.ms`; `None` is no limit.
    pub retention_ms: Option<i64>,
    /// `segment.bytes`.
    pub segment_bytes: u32,
    /// `segment.index.bytes`: size of an index at which a new segment is begun.
    pub segment_index_bytes: i32,
    /// `segment.ms`.
    pub segment_ms: i64,
}

const CODECS: &[&str] = &["uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"];

const fn setting(
    name: &'static str,
    broker_key: &'static str,
    default: &'static str,
    kind: Kind,
    meaning: &'static str,
) -> Setting {
    Setting { name, broker_key, default, kind, meaning }
}

const SETTINGS: &[Setting] = &[
    setting(
        "cleanup.policy",
        "log.cleanup.policy",
        "delete",
        Kind::ListOf(&["delete", "compact"]),
        "`delete` drops old segments by retention, `compact` keeps the newest record of each key and refuses records without a key. Compaction itself is not done yet: nothing is dropped from a compacted topic.",
    ),
    setting(
        "compression.type",
        "compression.type",
        "producer",
        Kind::OneOf(CODECS),
        "`producer` stores batches as they came; another value repacks each batch that has a different codec, which costs CPU on the broker.",
    ),
    setting(
        "delete.retention.ms",
        "log.cleaner.delete.retention.ms",
        "86400000",
        Kind::Long(0, i64::MAX),
        "How long a compacted topic keeps a deletion marker for readers that are behind.",
    ),
    setting(
        "file.delete.delay.ms",
        "log.segment.delete.delay.ms",
        "60000",
        Kind::Long(0, i64::MAX),
        "Kept for tools. Files go as soon as no reader holds them.",
    ),
    setting(
        "flush.messages",
        "log.flush.interval.messages",
        "9223372036854775807",
        Kind::Long(1, i64::MAX),
        "Kept for tools. An acknowledgement already means durable; see `pelton.durability`.",
    ),
    setting(
        "flush.ms",
        "log.flush.interval.ms",
        "1000",
        Kind::Long(1, i64::MAX),
        "With `pelton.durability=interval`: the most that a power cut may take back, in milliseconds. Kafka never flushes by default, since it relies on replicas; with `interval` that would promise nothing, so the default is a second.",
    ),
    setting(
        "follower.replication.throttled.replicas",
        "follower.replication.throttled.replicas",
        "",
        Kind::AnyList,
        "Kept for tools. One broker has no followers.",
    ),
    setting(
        "index.interval.bytes",
        "log.index.interval.bytes",
        "4096",
        Kind::Int(0, i32::MAX as i64),
        "Bytes of log between two entries of the offset index.",
    ),
    setting(
        "leader.replication.throttled.replicas",
        "leader.replication.throttled.replicas",
        "",
        Kind::AnyList,
        "Kept for tools. One broker has no followers.",
    ),
    setting(
        "local.retention.bytes",
        "log.local.retention.bytes",
        "-2",
        Kind::Long(-2, -2),
        "Tiered storage is not there: `retention.bytes` alone decides.",
    ),
    setting(
        "local.retention.ms",
        "log.local.retention.ms",
        "-2",
        Kind::Long(-2, -2),
        "Tiered storage is not there: `retention.ms` alone decides.",
    ),
    setting(
        "max.compaction.lag.ms",
        "log.cleaner.max.compaction.lag.ms",
        "9223372036854775807",
        Kind::Long(1, i64::MAX),
        "Longest time a record of a compacted topic may stay uncompacted.",
    ),
    setting(
        "max.message.bytes",
        "message.max.bytes",
        "1048588",
        Kind::Int(0, i32::MAX as i64),
        "Largest record batch, header included, as it is compressed.",
    ),
    setting(
        "message.timestamp.after.max.ms",
        "log.message.timestamp.after.max.ms",
        "3600000",
        Kind::Long(0, i64::MAX),
        "How far a record's timestamp may lie ahead of the broker's clock. One far ahead would keep its segment from expiring.",
    ),
    setting(
        "message.timestamp.before.max.ms",
        "log.message.timestamp.before.max.ms",
        "9223372036854775807",
        Kind::Long(0, i64::MAX),
        "How far a record's timestamp may lie behind the broker's clock.",
    ),
    setting(
        "message.timestamp.type",
        "log.message.timestamp.type",
        "CreateTime",
        Kind::OneOf(&["CreateTime", "LogAppendTime"]),
        "Whether records keep their producer's timestamp or get the broker's time of the append.",
    ),
    setting(
        "min.cleanable.dirty.ratio",
        "log.cleaner.min.cleanable.ratio",
        "0.5",
        Kind::Double(0.0, 1.0),
        "Part of a compacted log that must be uncompacted before it is worth a round.",
    ),
    setting(
        "min.compaction.lag.ms",
        "log.cleaner.min.compaction.lag.ms",
        "0",
        Kind::Long(0, i64::MAX),
        "Shortest time a record of a compacted topic stays uncompacted.",
    ),
    setting(
        "min.insync.replicas",
        "min.insync.replicas",
        "1",
        Kind::Int(1, i32::MAX as i64),
        "Copies that must be in sync for acks=all. There is one here: with 2 or more, such a produce gets NOT_ENOUGH_REPLICAS.",
    ),
    setting(
        "pelton.durability",
        "pelton.durability",
        "group",
        Kind::OneOf(&["group", "interval", "os"]),
        "What an acknowledgement means on this one machine: `group` is synced to disk, one sync for all partitions; `interval` is synced within `flush.ms`; `os` leaves it to the operating system. With the last two a power cut takes back acknowledged records.",
    ),
    setting(
        "preallocate",
        "log.preallocate",
        "false",
        Kind::Bool,
        "Kept for tools. Segments grow as they are written.",
    ),
    setting(
        "remote.log.copy.disable",
        "remote.log.copy.disable",
        "false",
        Kind::Always(false),
        "Tiered storage is not there.",
    ),
    setting(
        "remote.log.delete.on.disable",
        "remote.log.delete.on.disable",
        "false",
        Kind::Always(false),
        "Tiered storage is not there.",
    ),
    setting(
        "remote.storage.enable",
        "remote.log.storage.enable",
        "false",
        Kind::Always(false),
        "Tiered storage is not there.",
    ),
    setting(
        "retention.bytes",
        "log.retention.bytes",
        "-1",
        Kind::Long(-1, i64::MAX),
        "Bytes of a partition beyond which its oldest segments go. -1 is no limit. The segment being written never goes.",
    ),
    setting(
        "retention.ms",
        "log.retention.ms",
        "604800000",
        Kind::Long(-1, i64::MAX),
        "Age, by its newest record, at which a segment goes. -1 is no limit. The segment being written never goes.",
    ),
    setting(
        "segment.bytes",
        "log.segment.bytes",
        "1073741824",
        Kind::Int(14, i32::MAX as i64),
        "Size at which a new segment is begun.",
    ),
    setting(
        "segment.index.bytes",
        "log.index.size.max.bytes",
        "10485760",
        Kind::Int(4, i32::MAX as i64),
        "Size of an index at which a new segment is begun.",
    ),
    setting(
        "segment.jitter.ms",
        "log.roll.jitter.ms",
        "0",
        Kind::Long(0, i64::MAX),
        "Kept for tools. One journal makes the moment of a roll cheap.",
    ),
    setting(
        "segment.ms",
        "log.roll.ms",
        "604800000",
        Kind::Long(1, i64::MAX),
        "Age at which a new segment is begun even if the current one is not full.",
    ),
    setting(
        "unclean.leader.election.enable",
        "unclean.leader.election.enable",
        "false",
        Kind::Bool,
        "Kept for tools. One broker elects no leaders.",
    ),
];

/// Every setting, by name.
pub fn settings() -> &'static [Setting] {
    SETTINGS
}

/// The setting of this name.
pub fn by_name(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.name == name)
}

/// The setting whose default this broker setting gives.
pub fn by_broker_key(key: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|s| s.broker_key == key)
}

pub(crate) fn broker_keys() -> impl Iterator<Item = &'static str> {
    SETTINGS.iter().map(|s| s.broker_key)
}

impl Kind {
    /// Checks a text; the error says what to write instead.
    fn check(&self, text: &str) -> Result<(), String> {
        let ok = match *self {
            Kind::Int(low, high) | Kind::Long(low, high) => {
                text.trim().parse::<i64>().is_ok_and(|n| (low..=high).contains(&n))
            }
            Kind::Double(low, high) => text.trim().parse::<f64>().is_ok_and(|n| (low..=high).contains(&n)),
            Kind::Bool => matches!(text.trim(), "true" | "false"),
            Kind::Always(only) => text.trim() == if only { "true" } else { "false" },
            Kind::OneOf(words) => words.contains(&text.trim()),
            Kind::ListOf(words) => text.split(',').all(|word| words.contains(&word.trim())),
            Kind::AnyList => true,
        };
        if ok { Ok(()) } else { Err(self.fix()) }
    }

    fn fix(&self) -> String {
        match *self {
            Kind::Int(low, high) | Kind::Long(low, high) if low == high => format!("only {low} is possible"),
            Kind::Int(low, high) | Kind::Long(low, high) => {
                format!("write a whole number from {low} to {high}")
            }
            Kind::Double(low, high) => format!("write a number from {low} to {high}"),
            Kind::Bool => "write `true` or `false`".to_owned(),
            Kind::Always(only) => format!("only `{only}` is possible"),
            Kind::OneOf(words) => format!("write one of {}", words.join(", ")),
            Kind::ListOf(words) => format!("write one or more of {}, separated by commas", words.join(", ")),
            Kind::AnyList => "write a list separated by commas".to_owned(),
        }
    }
}

impl TopicConfig {
    /// Checks one value; the error says what to write instead.
    ///
    /// # Errors
    /// The text is not of the setting's kind.
    pub fn check_value(setting: &Setting, text: &str) -> Result<(), String> {
        setting.kind.check(text)
    }

    /// Checks what a client wants a topic's settings to be.
    ///
    /// # Errors
    /// The first setting that does not exist or whose value is refused, with the cure.
    pub fn check_overrides(overrides: &Overrides) -> Result<(), ConfigError> {
        for (name, text) in overrides {
            let setting = by_name(name).ok_or_else(|| ConfigError::UnknownKey {
                key: name.clone(),
                nearest: nearest(name, SETTINGS.iter().map(|s| s.name)).map(str::to_owned),
            })?;
            setting.kind.check(text).map_err(|fix| ConfigError::BadValue {
                key: name.clone(),
                value: text.clone(),
                fix,
            })?;
        }
        Ok(())
    }

    /// What a topic's own settings and the broker's defaults come to. Both are checked before they are stored, so a
    /// value that does not parse (a data directory of a later version) counts as not set.
    pub fn resolve(defaults: &Overrides, overrides: &Overrides) -> TopicConfig {
        let text = |name: &str| -> &str {
            let setting = by_name(name).expect("only names from the table are asked for");
            let set = overrides.get(name).or_else(|| defaults.get(name)).map(String::as_str);
            set.filter(|text| setting.kind.check(text).is_ok()).unwrap_or(setting.default).trim()
        };
        let long = |name: &str| text(name).parse::<i64>().unwrap_or(i64::MAX);
        let int = |name: &str| i32::try_from(long(name)).unwrap_or(i32::MAX);
        let policy = text("cleanup.policy");
        TopicConfig {
            delete: policy.split(',').any(|p| p.trim() == "delete"),
            compact: policy.split(',').any(|p| p.trim() == "compact"),
            compression: compression_type(text("compression.type")),
            delete_retention_ms: long("delete.retention.ms"),
            flush_ms: long("flush.ms"),
            index_interval_bytes: int("index.interval.bytes"),
            max_message_bytes: int("max.message.bytes"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            min_insync_replicas: int("min.insync.replicas"),
            durability: durability(text("pelton.durability")),
            retention_bytes: u64::try_from(long("retention.bytes")).ok(),
            retention_ms: Some(long("retention.ms")).filter(|ms| *ms >= 0),
            segment_bytes: u32::try_from(long("segment.bytes")).unwrap_or(u32::MAX),
            segment_index_bytes: int("segment.index.bytes"),
            segment_ms: long("segment.ms"),
        }
    }
}

/// Where the value of a topic's setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Set for the topic.
    Topic,
    /// Set for the broker.
    Broker,
    /// Nobody has set it.
    Default,
}

impl Source {
    /// Kafka's number for it in the responses of CreateTopics and DescribeConfigs.
    pub fn code(self) -> i8 {
        match self {
            Source::Topic => 1,
            Source::Broker => 4,
            Source::Default => 5,
        }
    }
}

/// Every setting of a topic with its value and where that comes from, by name.
pub fn effective<'a>(
    defaults: &'a Overrides,
    overrides: &'a Overrides,
) -> impl Iterator<Item = (&'static Setting, &'a str, Source)> {
    SETTINGS.iter().map(move |setting| match (overrides.get(setting.name), defaults.get(setting.name)) {
        (Some(text), _) => (setting, text.as_str(), Source::Topic),
        (None, Some(text)) => (setting, text.as_str(), Source::Broker),
        (None, None) => (setting, setting.default, Source::Default),
    })
}

fn compression_type(text: &str) -> CompressionType {
    use pelton_wire::record::Codec;
    match text {
        "uncompressed" => CompressionType::Fixed(Codec::None),
        "gzip" => CompressionType::Fixed(Codec::Gzip),
        "snappy" => CompressionType::Fixed(Codec::Snappy),
        "lz4" => CompressionType::Fixed(Codec::Lz4),
        "zstd" => CompressionType::Fixed(Codec::Zstd),
        _ => CompressionType::Producer,
    }
}

fn durability(text: &str) -> Durability {
    match text {
        "interval" => Durability::Interval,
        "os" => Durability::Os,
        _ => Durability::Group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_a_value_of_its_own_kind() {
        for setting in settings() {
            assert_eq!(setting.kind.check(setting.default), Ok(()), "{}", setting.name);
        }
        let names: Vec<_> = settings().iter().map(|s| s.name).collect();
        assert!(names.is_sorted(), "DescribeConfigs lists them in order");
    }

    #[test]
    fn defaults_are_kafkas() {
        let config = TopicConfig::resolve(&Overrides::new(), &Overrides::new());
        assert!(config.delete && !config.compact);
        assert_eq!(config.retention_ms, Some(7 * 24 * 60 * 60 * 1000));
        assert_eq!(config.retention_bytes, None);
        assert_eq!(config.segment_bytes, 1 << 30);
        assert_eq!(config.max_message_bytes, 1_048_588);
        assert_eq!(config.compression, CompressionType::Producer);
        assert_eq!(config.durability, Durability::Group);
    }

    #[test]
    fn a_topics_own_setting_wins_over_the_brokers() {
        let defaults =
            Overrides::from([("segment.bytes".into(), "1000".into()), ("retention.ms".into(), "5".into())]);
        let own = Overrides::from([
            ("segment.bytes".into(), "2000".into()),
            ("cleanup.policy".into(), "compact, delete".into()),
        ]);
        let config = TopicConfig::resolve(&defaults, &own);
        assert_eq!((config.segment_bytes, config.retention_ms), (2000, Some(5)));
        assert!(config.delete && config.compact);
    }

    #[test]
    fn overrides_are_checked() {
        let check = |name: &str, value: &str, expect: Result<(), &str>| {
            let got = TopicConfig::check_overrides(&Overrides::from([(name.into(), value.into())]));
            match (got.map_err(|e| e.to_string()), expect) {
                (Ok(()), Ok(())) => {}
                (Err(text), Err(part)) if text.contains(part) => {}
                (got, expect) => panic!("{name}={value}: got {got:?}, expected {expect:?}"),
            }
        };
        check("retention.ms", "-1", Ok(()));
        check("retention.ms", "-2", Err("write a whole number from -1"));
        check("retention.msec", "1", Err("did you mean `retention.ms`?"));
        check("cleanup.policy", "compact,delete", Ok(()));
        check("cleanup.policy", "", Err("write one or more of delete, compact"));
        check("min.cleanable.dirty.ratio", "1.5", Err("from 0 to 1"));
        check("min.cleanable.dirty.ratio", "NaN", Err("from 0 to 1"));
        check("remote.storage.enable", "true", Err("only `false` is possible"));
        check("compression.type", "brotli", Err("write one of"));
        check("pelton.durability", "interval", Ok(()));
        check("segment.bytes", "1e9", Err("write a whole number"));
    }
}
