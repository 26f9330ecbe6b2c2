//! Every setting a topic can have: the one table from which validation, DescribeConfigs and the documentation are made.
//! Names, defaults and meaning are Kafka's; what starts with `pelton.` is ours, and a default that differs says why.

mod table;

use std::collections::BTreeMap;

use pelton_commitlog::Compaction;
use pelton_wire::record::Codec;

use self::table::SETTINGS;
use crate::setting::{ConfigError, nearest};

/// Settings of a topic by name, as text: what its creator set, without defaults.
pub type Overrides = BTreeMap<String, String>;

/// What kind of value a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number from low to high, 32 bits on the wire of DescribeConfigs.
    Int(i64, i64),
    /// -1, for a default of its own, or a whole number from low to high, 32 bits.
    Level(i64, i64),
    /// A whole number from low to high, 64 bits.
    Long(i64, i64),
    /// A fraction from low to high.
    Double(f64, f64),
    /// `true` or `false`.
    Bool,
    /// `true` or `false`, of which only this one is possible: the other asks for something that is not there.
    Always(bool),
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A comma separated list of these words, or nothing.
    ListOf(&'static [&'static str]),
    /// A comma separated list of anything, or nothing.
    AnyList,
    /// The name of a partitioner, or nothing. Whether there is one of that name is for others to say.
    Partitioner,
    /// A table of TOML on one line, or nothing. What may be in it is for others to say.
    Table,
    /// What happens to a record that fails.
    OnError,
}

/// One setting of a topic.
#[derive(Debug)]
pub struct Setting {
    /// Kafka's name.
    pub name: &'static str,
    /// The broker's setting that gives the default; empty if there is none.
    pub broker_key: &'static str,
    /// The default, as text.
    pub default: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its effect here.
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
    Fixed {
        codec: Codec,
        /// How hard it tries (`compression.gzip.level` and others), if that is set.
        level: Option<i32>,
    },
}

/// What happens to a record that a topic's partitioner cannot place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// Routing stops there.
    #[default]
    Fail,
    /// It is dropped and counted.
    Skip,
    /// It goes to this topic.
    DeadLetter(String),
}

impl OnError {
    fn parse(text: &str) -> Option<OnError> {
        match text {
            "fail" => Some(OnError::Fail),
            "skip" => Some(OnError::Skip),
            _ => {
                let topic = text.strip_prefix("dead-letter:")?;
                // The rest of what a name must be is for whoever creates the topic.
                let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
                (!topic.is_empty() && topic.chars().all(plain)).then(|| OnError::DeadLetter(topic.to_owned()))
            }
        }
    }
}

/// Who places the records of a topic, whichever partition its clients chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPartitioner {
    /// `pelton.partitioner`: a rule, or a plugin.
    pub name: String,
    /// `pelton.partitioner.config`: a table of TOML; empty for nothing.
    pub config: String,
    /// `pelton.partitioner.on.error`.
    pub on_error: OnError,
    /// `pelton.intake.max.bytes`.
    pub intake_max_bytes: u64,
}

/// The effective settings of one topic, defaults included.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` has `delete`.
    pub delete: bool,
    /// `cleanup.policy` has `compact`.
    pub compact: bool,
    /// How it is compacted, if `compact` is there: `min.cleanable.dirty.ratio`, `min.compaction.lag.ms`,
    /// `max.compaction.lag.ms`, `delete.retention.ms`.
    pub compaction: Compaction,
    /// `compression.type`.
    pub compression: CompressionType,
    /// `flush.ms`.
    pub flush_ms: i64,
    /// `index.interval.bytes`.
    pub index_interval_bytes: i32,
    /// `max.decompressed.message.bytes`: largest record of a compressed batch.
    pub max_decompressed_message_bytes: usize,
    /// `max.message.bytes`: largest batch, header included.
    pub max_message_bytes: i32,
    /// `message.timestamp.after.max.ms`.
    pub timestamp_after_max_ms: i64,
    /// `message.timestamp.before.max.ms`.
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.type` is `LogAppendTime`.
    pub log_append_time: bool,
    /// `pelton.durability`.
    pub durability: Durability,
    /// `pelton.partitioner`, if one is set for the topic itself.
    pub partitioner: Option<TopicPartitioner>,
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

/// Settings that Kafka does not have start so.
const OWN_PREFIX: &str = "pelton.";

impl Setting {
    /// Whether Kafka does not have it. Tools see it as read-only, so that a mirror (MirrorMaker 2) leaves it out: a
    /// Kafka would refuse the topic, and another broker may have another disk.
    pub fn is_own(&self) -> bool {
        self.name.starts_with(OWN_PREFIX)
    }
}

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
    with_broker_key().find(|s| s.broker_key == key)
}

pub fn broker_keys() -> impl Iterator<Item = &'static str> {
    with_broker_key().map(|s| s.broker_key)
}

/// The settings whose default the broker's configuration can give.
pub fn with_broker_key() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|s| !s.broker_key.is_empty())
}

impl Kind {
    /// Checks a text; the error says what to write instead.
    fn check(&self, text: &str) -> Result<(), String> {
        let text = text.trim();
        let within = |low: i64, high: i64| text.parse::<i64>().is_ok_and(|n| (low..=high).contains(&n));
        let ok = match *self {
            Kind::Int(low, high) | Kind::Long(low, high) => within(low, high),
            Kind::Level(low, high) => within(-1, -1) || within(low, high),
            Kind::Double(low, high) => text.parse::<f64>().is_ok_and(|n| (low..=high).contains(&n)),
            Kind::Bool => boolean(text).is_some(),
            Kind::Always(only) => boolean(text) == Some(only),
            Kind::OneOf(words) => words.contains(&text),
            Kind::ListOf(words) => {
                text.is_empty() || text.split(',').all(|word| words.contains(&word.trim()))
            }
            Kind::AnyList => true,
            Kind::Partitioner => text.is_empty() || is_partitioner(text),
            Kind::Table => {
                text.is_empty() || (text.starts_with('{') && text.ends_with('}') && !text.contains('\n'))
            }
            Kind::OnError => OnError::parse(text).is_some(),
        };
        if ok { Ok(()) } else { Err(self.fix()) }
    }

    fn fix(&self) -> String {
        match *self {
            Kind::Int(low, high) | Kind::Long(low, high) => {
                format!("write a whole number from {low} to {high}")
            }
            Kind::Level(low, high) => format!("write -1, or a whole number from {low} to {high}"),
            Kind::Double(low, high) => format!("write a number from {low} to {high}"),
            Kind::Bool => "write `true` or `false`".to_owned(),
            Kind::Always(only) => format!("only `{only}` is possible"),
            Kind::OneOf(words) => format!("write one of {}", words.join(", ")),
            Kind::ListOf(words) => {
                format!("write some of {}, separated by commas, or nothing", words.join(", "))
            }
            Kind::AnyList => "write a list separated by commas".to_owned(),
            Kind::Partitioner => {
                "write a rule (`murmur2`), or the name of a plugin (`region`, `region@sha256:...`)".to_owned()
            }
            Kind::Table => "write a table of TOML on one line (`{ default = 0 }`), or nothing".to_owned(),
            Kind::OnError => "write `fail`, `skip` or `dead-letter:TOPIC`".to_owned(),
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

    /// Checks the settings that a client gives a topic.
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

    /// Checks that the settings of a topic can be replaced by others.
    ///
    /// # Errors
    /// The topic would get a partitioner, or lose it: producers' sequences would begin anew elsewhere.
    pub fn check_change(before: &Overrides, after: &Overrides) -> Result<(), ConfigError> {
        let named = |overrides: &Overrides| {
            overrides.get(PARTITIONER).filter(|name| !name.trim().is_empty()).cloned()
        };
        match (named(before), named(after)) {
            (None, None) | (Some(_), Some(_)) => Ok(()),
            (None, Some(value)) => Err(ConfigError::BadValue {
                key: PARTITIONER.to_owned(),
                value,
                fix: "a topic has a partitioner from its creation on; create another topic with it"
                    .to_owned(),
            }),
            (Some(_), None) => Err(ConfigError::BadValue {
                key: PARTITIONER.to_owned(),
                value: String::new(),
                fix: "a topic keeps having a partitioner; name another one, or create another topic"
                    .to_owned(),
            }),
        }
    }

    /// The effective settings, from a topic's own and the broker's defaults. Both are checked before they are stored,
    /// so a value that does not parse (a data directory of a later version) counts as not set.
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
            compaction: Compaction {
                min_cleanable_dirty_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(1.0),
                min_compaction_lag_ms: long("min.compaction.lag.ms"),
                max_compaction_lag_ms: long("max.compaction.lag.ms"),
                delete_retention_ms: long("delete.retention.ms"),
            },
            compression: compression_type(text("compression.type"), |name| text(name).parse().ok()),
            flush_ms: long("flush.ms"),
            index_interval_bytes: int("index.interval.bytes"),
            max_decompressed_message_bytes: usize::try_from(long("max.decompressed.message.bytes"))
                .unwrap_or(usize::MAX),
            max_message_bytes: int("max.message.bytes"),
            timestamp_after_max_ms: long("message.timestamp.after.max.ms"),
            timestamp_before_max_ms: long("message.timestamp.before.max.ms"),
            log_append_time: text("message.timestamp.type") == "LogAppendTime",
            durability: durability(text("pelton.durability")),
            partitioner: partitioner(overrides, &text, long("pelton.intake.max.bytes")),
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
    /// It is not set anywhere.
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

/// A setting of a topic, with every value that is set for it.
#[derive(Clone, Copy, Debug)]
pub struct Effective<'a> {
    /// The setting, with its default.
    pub setting: &'static Setting,
    /// The topic's own value.
    pub own: Option<&'a str>,
    /// The broker's value for topics without one of their own.
    pub broker: Option<&'a str>,
}

impl<'a> Effective<'a> {
    /// The value that counts: the topic's own before the broker's before the default.
    pub fn value(&self) -> &'a str {
        self.own.or(self.broker).unwrap_or(self.setting.default)
    }

    /// Where that value comes from.
    pub fn source(&self) -> Source {
        match (self.own, self.broker) {
            (Some(_), _) => Source::Topic,
            (None, Some(_)) => Source::Broker,
            (None, None) => Source::Default,
        }
    }
}

/// Every setting of a topic, by name.
pub fn effective<'a>(
    defaults: &'a Overrides,
    overrides: &'a Overrides,
) -> impl Iterator<Item = Effective<'a>> {
    SETTINGS.iter().map(|setting| Effective {
        setting,
        own: overrides.get(setting.name).map(String::as_str),
        broker: defaults.get(setting.name).map(String::as_str),
    })
}

/// The setting that gives a topic an intake.
const PARTITIONER: &str = "pelton.partitioner";

/// A partitioner is a topic's own: the broker has no default for it.
fn partitioner<'a>(
    overrides: &Overrides,
    text: &impl Fn(&str) -> &'a str,
    intake_max_bytes: i64,
) -> Option<TopicPartitioner> {
    overrides.get(PARTITIONER)?;
    let name = text(PARTITIONER);
    (!name.is_empty()).then(|| TopicPartitioner {
        name: name.to_owned(),
        config: text("pelton.partitioner.config").to_owned(),
        on_error: OnError::parse(text("pelton.partitioner.on.error")).unwrap_or_default(),
        intake_max_bytes: intake_max_bytes.unsigned_abs(),
    })
}

/// Whether a text can name a rule or a plugin.
fn is_partitioner(text: &str) -> bool {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let is_digest = |digest: &str| {
        digest
            .strip_prefix("sha256:")
            .is_some_and(|hex| hex.len() == 64 && hex.chars().all(|c| c.is_ascii_hexdigit()))
    };
    !name.is_empty() && name.len() <= 128 && name.chars().all(plain) && digest.is_none_or(is_digest)
}

fn compression_type(text: &str, level: impl Fn(&str) -> Option<i32>) -> CompressionType {
    let (codec, level) = match text {
        "uncompressed" => (Codec::None, None),
        "gzip" => (Codec::Gzip, level("compression.gzip.level").filter(|level| *level != -1)),
        "snappy" => (Codec::Snappy, None),
        "lz4" => (Codec::Lz4, None),
        "zstd" => (Codec::Zstd, level("compression.zstd.level")),
        _ => return CompressionType::Producer,
    };
    CompressionType::Fixed { codec, level }
}

/// A boolean as Kafka reads it, in capitals too.
fn boolean(text: &str) -> Option<bool> {
    if text.eq_ignore_ascii_case("true") {
        Some(true)
    } else if text.eq_ignore_ascii_case("false") {
        Some(false)
    } else {
        None
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

    /// The topic keys of Apache Kafka 4.4: a tool may set any of them.
    #[test]
    fn every_key_of_kafka_is_known() {
        const KAFKAS: [&str; 37] = [
            "cleanup.policy",
            "compression.gzip.level",
            "compression.lz4.level",
            "compression.type",
            "compression.zstd.level",
            "delete.retention.ms",
            "errors.deadletterqueue.group.enable",
            "file.delete.delay.ms",
            "flush.messages",
            "flush.ms",
            "follower.replication.throttled.replicas",
            "index.interval.bytes",
            "leader.replication.throttled.replicas",
            "local.retention.bytes",
            "local.retention.ms",
            "max.compaction.lag.ms",
            "max.decompressed.message.bytes",
            "max.message.bytes",
            "message.timestamp.after.max.ms",
            "message.timestamp.before.max.ms",
            "message.timestamp.type",
            "min.cleanable.dirty.ratio",
            "min.compaction.lag.ms",
            "min.insync.replicas",
            "preallocate",
            "remote.copy.lag.bytes",
            "remote.copy.lag.ms",
            "remote.log.copy.disable",
            "remote.log.delete.on.disable",
            "remote.storage.enable",
            "retention.bytes",
            "retention.ms",
            "segment.bytes",
            "segment.index.bytes",
            "segment.jitter.ms",
            "segment.ms",
            "unclean.leader.election.enable",
        ];
        let known = settings().iter().map(|s| s.name).filter(|name| !name.starts_with(OWN_PREFIX));
        assert!(known.eq(KAFKAS));
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
        check("cleanup.policy", "", Ok(()));
        check("cleanup.policy", "shred", Err("write some of delete, compact"));
        check("preallocate", "TRUE", Ok(()));
        check("preallocate", "yes", Err("write `true` or `false`"));
        check("compression.gzip.level", "-1", Ok(()));
        check("compression.gzip.level", "0", Err("write -1, or a whole number from 1 to 9"));
        check("min.cleanable.dirty.ratio", "1.5", Err("from 0 to 1"));
        check("min.cleanable.dirty.ratio", "NaN", Err("from 0 to 1"));
        check("remote.storage.enable", "true", Err("only `false` is possible"));
        check("compression.type", "brotli", Err("write one of"));
        check("pelton.durability", "interval", Ok(()));
        check("segment.bytes", "1e9", Err("write a whole number"));
    }
}
