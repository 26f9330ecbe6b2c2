//! Sizes, durations and start positions as a manifest writes them.

use std::fmt;

use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// A number of bytes: `"16 MiB"`, `"512 KiB"`, `"1 MB"`, `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(u64);

/// Units by name; the binary ones first, because they are printed.
const SIZE_UNITS: [(&str, u64); 8] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("KB", 1_000),
];

impl ByteSize {
    /// So many bytes.
    pub const fn new(bytes: u64) -> ByteSize {
        ByteSize(bytes)
    }

    /// So many times 1024 × 1024 bytes.
    pub const fn mib(mib: u64) -> ByteSize {
        ByteSize(mib << 20)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// Parses a number with a unit.
    ///
    /// # Errors
    /// What would be right, as a text that follows "must be".
    pub fn parse(text: &str) -> Result<ByteSize, &'static str> {
        let (number, unit) = split(text);
        let scale = SIZE_UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
        let bytes = scale.and_then(|scale| number.parse::<u64>().ok()?.checked_mul(scale));
        bytes.map(ByteSize).ok_or("a whole number and one of B, KiB, MiB, GiB, kB, MB, GB, as \"16 MiB\"")
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = SIZE_UNITS.iter().take(4).find(|(_, scale)| self.0 != 0 && self.0.is_multiple_of(*scale));
        let (name, scale) = unit.copied().unwrap_or(("B", 1));
        write!(f, "{} {name}", self.0 / scale)
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
        deserializer.deserialize_any(TextOrInteger {
            expecting: "a size, as \"16 MiB\" or a number of bytes",
            parse: ByteSize::parse,
            integer: |bytes| Some(ByteSize(bytes)),
        })
    }
}

/// A length of time: `"100ms"`, `"30s"`, `"10m"`, `"1h"`, `"7d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(u64);

impl Millis {
    /// So many milliseconds.
    pub const fn new(ms: u64) -> Millis {
        Millis(ms)
    }

    /// The number of milliseconds.
    pub const fn ms(self) -> u64 {
        self.0
    }

    /// Parses a number with a unit.
    ///
    /// # Errors
    /// What would be right, as a text that follows "must be".
    pub fn parse(text: &str) -> Result<Millis, &'static str> {
        let (number, unit) = split(text);
        let scale = match unit {
            "ms" => Some(1),
            "s" => Some(1_000),
            "m" => Some(60_000),
            "h" => Some(3_600_000),
            "d" => Some(86_400_000),
            _ => None,
        };
        let ms = scale.and_then(|scale| number.parse::<u64>().ok()?.checked_mul(scale));
        ms.map(Millis).ok_or("a whole number and one of ms, s, m, h, d, as \"10m\"")
    }
}

impl<'de> Deserialize<'de> for Millis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Millis, D::Error> {
        deserializer.deserialize_any(TextOrInteger {
            expecting: "a duration, as \"10m\"",
            parse: Millis::parse,
            integer: |_| None,
        })
    }
}

fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    (&text[..end], text[end..].trim())
}

/// Where a pipeline begins to read a source that it has no committed offset for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Start {
    /// The first record that is kept.
    #[default]
    Earliest,
    /// What is written from now on.
    Latest,
    /// This offset, in every partition.
    Offset(i64),
    /// The first record with this timestamp or a later one, in milliseconds since 1970-01-01 UTC.
    Timestamp(i64),
}

impl Start {
    /// Parses `earliest`, `latest`, `offset:N` or `timestamp:RFC3339`.
    ///
    /// # Errors
    /// What would be right, as a text that follows "must be".
    pub fn parse(text: &str) -> Result<Start, &'static str> {
        const EXPECT: &str = "\"earliest\", \"latest\", \"offset:N\" or \"timestamp:RFC3339\" with a time zone, as \
                              \"timestamp:2013-01-01T00:00:00Z\"";
        match text.split_once(':') {
            None if text == "earliest" => Ok(Start::Earliest),
            None if text == "latest" => Ok(Start::Latest),
            Some(("offset", n)) => n.parse().ok().filter(|n| *n >= 0).map(Start::Offset).ok_or(EXPECT),
            Some(("timestamp", time)) => epoch_ms(time).map(Start::Timestamp).ok_or(EXPECT),
            _ => Err(EXPECT),
        }
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Start, D::Error> {
        deserializer.deserialize_any(TextOrInteger {
            expecting: "where to start, as \"earliest\"",
            parse: Start::parse,
            integer: |_| None,
        })
    }
}

/// Milliseconds since 1970-01-01 UTC of a date and time with a zone.
pub fn epoch_ms(text: &str) -> Option<i64> {
    let parsed: toml::value::Datetime = text.parse().ok()?;
    let (date, time) = (parsed.date?, parsed.time?);
    let zone_minutes = match parsed.offset? {
        toml::value::Offset::Z => 0,
        toml::value::Offset::Custom { minutes } => i64::from(minutes),
    };
    // Days from the civil calendar: years begin in March, so that the leap day is the last one.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    let days =
        year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year - 719_468;
    let minutes = days * 1440 + i64::from(time.hour) * 60 + i64::from(time.minute) - zone_minutes;
    let (second, nanosecond) = (time.second, time.nanosecond);
    Some((minutes * 60 + i64::from(second)) * 1000 + i64::from(nanosecond) / 1_000_000)
}

/// Date and time of milliseconds since 1970-01-01 UTC: `2013-01-01T10:00:00Z`, with milliseconds if there are any. What
/// [`epoch_ms`] reads.
pub fn epoch_text(ms: i64) -> String {
    let (seconds, ms) = (ms.div_euclid(1000), ms.rem_euclid(1000));
    let (days, second) = (seconds.div_euclid(86_400) + 719_468, seconds.rem_euclid(86_400));
    // Eras of 400 years, which begin in March.
    let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let fraction = if ms == 0 { String::new() } else { format!(".{ms:03}") };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

struct TextOrInteger<T> {
    expecting: &'static str,
    parse: fn(&str) -> Result<T, &'static str>,
    integer: fn(u64) -> Option<T>,
}

impl<T> Visitor<'_> for TextOrInteger<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expecting)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        (self.parse)(text).map_err(|expect| E::custom(format_args!("`{text}` must be {expect}")))
    }

    fn visit_i64<E: de::Error>(self, given: i64) -> Result<T, E> {
        let value = u64::try_from(given).ok().and_then(self.integer);
        value.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(given), &self))
    }

    fn visit_u64<E: de::Error>(self, given: u64) -> Result<T, E> {
        (self.integer)(given).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(given), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        assert_eq!(epoch_text(0), "1970-01-01T00:00:00Z");
        assert_eq!(epoch_text(1_357_034_400_000), "2013-01-01T10:00:00Z");
        assert_eq!(epoch_text(-1), "1969-12-31T23:59:59.999Z");
        assert_eq!(epoch_text(951_782_400_000), "2000-02-29T00:00:00Z");
        for day in -150_000_i64..150_000 {
            let ms = day * 86_400_000 + day.rem_euclid(86_400_000);
            assert_eq!(epoch_ms(&epoch_text(ms)), Some(ms), "{}", epoch_text(ms));
        }
    }

    #[test]
    fn sizes() {
        for (text, expect) in [
            ("16 MiB", Some((16 << 20, "16 MiB"))),
            ("1GiB", Some((1 << 30, "1 GiB"))),
            ("512 KiB", Some((512 << 10, "512 KiB"))),
            ("1 MB", Some((1_000_000, "1000000 B"))),
            ("0 B", Some((0, "0 B"))),
            ("16", None),
            ("16 mib", None),
            ("-1 B", None),
            ("1.5 MiB", None),
            ("99999999999 GiB", None),
            ("", None),
        ] {
            let got = ByteSize::parse(text).ok().map(|size| (size.bytes(), size.to_string()));
            assert_eq!(got, expect.map(|(bytes, shown)| (bytes, shown.to_owned())), "{text}");
        }
    }

    #[test]
    fn durations() {
        for (text, expect) in [
            ("100ms", Some(100)),
            ("30s", Some(30_000)),
            ("10m", Some(600_000)),
            ("1 h", Some(3_600_000)),
            ("7d", Some(604_800_000)),
            ("10", None),
            ("m", None),
            ("999999999999999999d", None),
        ] {
            assert_eq!(Millis::parse(text).ok().map(Millis::ms), expect, "{text}");
        }
    }

    #[test]
    fn starts() {
        for (text, expect) in [
            ("earliest", Some(Start::Earliest)),
            ("latest", Some(Start::Latest)),
            ("offset:42", Some(Start::Offset(42))),
            ("offset:-1", None),
            ("timestamp:1970-01-01T00:00:00Z", Some(Start::Timestamp(0))),
            ("timestamp:2013-01-01T10:00:00Z", Some(Start::Timestamp(1_357_034_400_000))),
            ("timestamp:2013-01-01T10:00:00.250+02:00", Some(Start::Timestamp(1_357_027_200_250))),
            ("timestamp:2000-02-29T23:59:59Z", Some(Start::Timestamp(951_868_799_000))),
            ("timestamp:1969-12-31T23:59:59Z", Some(Start::Timestamp(-1_000))),
            ("timestamp:2013-01-01", None),
            ("timestamp:2013-01-01T10:00:00", None),
            ("oldest", None),
        ] {
            assert_eq!(Start::parse(text).ok(), expect, "{text}");
        }
    }
}
