//! How a setting's text becomes a value and back, and what is said when it does not.

use std::fmt;
use std::path::PathBuf;

/// A setting that was refused: which one, what was given, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// No setting has this name.
    #[error("there is no setting `{key}`{}", nearest.as_ref().map(|n| format!("; did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// What was asked for.
        key: String,
        /// The known name closest to it, if one is close.
        nearest: Option<String>,
    },
    /// The text is not a value of the setting's kind, or is out of its range.
    #[error("`{key}` cannot be `{value}`: {fix}")]
    BadValue {
        /// The setting.
        key: String,
        /// The text given.
        value: String,
        /// What to write instead.
        fix: String,
    },
    /// Two settings do not fit together.
    #[error("`{key}` cannot be `{value}` {why}: {fix}")]
    Conflict {
        /// The setting to change.
        key: &'static str,
        /// Its value.
        value: String,
        /// What it collides with.
        why: &'static str,
        /// What to write instead.
        fix: &'static str,
    },
}

/// A host and a port, as in `broker.example:9092` or `[::1]:9092`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address, without brackets.
    pub host: String,
    /// The port; 0 asks the kernel for a free one.
    pub port: u16,
}

impl HostPort {
    /// True for an address that stands for every interface of the machine, which no client can dial.
    pub fn is_wildcard(&self) -> bool {
        matches!(self.host.as_str(), "0.0.0.0" | "::" | "*" | "")
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A kind of value: text in, text out.
pub(crate) trait Value: Sized {
    /// Reads the text; the error says what to write instead.
    fn parse(text: &str) -> Result<Self, String>;
    /// The text that `parse` reads back to the same value.
    fn render(&self) -> String;
    /// The value as a number, for the range check of numeric settings.
    fn number(&self) -> Option<i128> {
        None
    }
}

macro_rules! integers {
    ($($ty:ty),*) => { $(
        impl Value for $ty {
            fn parse(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| {
                    format!("write a whole number from {} to {}", <$ty>::MIN, <$ty>::MAX)
                })
            }
            fn render(&self) -> String {
                self.to_string()
            }
            fn number(&self) -> Option<i128> {
                Some(i128::from(*self))
            }
        }
    )* };
}
integers!(i16, i32, i64, u16, u32, u64);

impl Value for bool {
    fn parse(text: &str) -> Result<Self, String> {
        match text.trim() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("write `true` or `false`".to_owned()),
        }
    }
    fn render(&self) -> String {
        self.to_string()
    }
}

impl Value for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn render(&self) -> String {
        self.clone()
    }
}

impl Value for PathBuf {
    fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            Err("write the path of a directory".to_owned())
        } else {
            Ok(PathBuf::from(text))
        }
    }
    fn render(&self) -> String {
        self.display().to_string()
    }
}

impl Value for HostPort {
    fn parse(text: &str) -> Result<Self, String> {
        let fix = || "write HOST:PORT, for example `127.0.0.1:9092` or `[::1]:9092`".to_owned();
        let (host, port) = text.trim().rsplit_once(':').ok_or_else(fix)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(fix)?,
            None if host.contains(':') => return Err(fix()),
            None => host,
        };
        let port = port.parse().map_err(|_| fix())?;
        Ok(HostPort { host: host.to_owned(), port })
    }
    fn render(&self) -> String {
        self.to_string()
    }
}

impl<T: Value> Value for Option<T> {
    fn parse(text: &str) -> Result<Self, String> {
        if matches!(text.trim(), "" | "off") { Ok(None) } else { T::parse(text).map(Some) }
    }
    fn render(&self) -> String {
        self.as_ref().map(T::render).unwrap_or_default()
    }
    fn number(&self) -> Option<i128> {
        self.as_ref().and_then(T::number)
    }
}

/// The candidate nearest to `given` by edit distance, when it is near enough to be a slip of the finger.
pub(crate) fn nearest<'a>(given: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Names longer than any of ours cannot be a slip of one, and the table below grows with the product of both lengths.
    const LONGEST_NAME: usize = 64;
    if given.len() > LONGEST_NAME {
        return None;
    }
    candidates
        .map(|candidate| (edit_distance(given.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, candidate)| *distance <= candidate.len() / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

fn edit_distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, &from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let change = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_port() {
        let check = |text: &str, expect: Option<(&str, u16)>| {
            let got = HostPort::parse(text).ok().map(|h| (h.host, h.port));
            assert_eq!(got, expect.map(|(h, p)| (h.to_owned(), p)), "{text}");
        };
        check("127.0.0.1:9092", Some(("127.0.0.1", 9092)));
        check("[::1]:0", Some(("::1", 0)));
        check("broker.example:1", Some(("broker.example", 1)));
        check(":9092", Some(("", 9092)));
        check("::1:9092", None);
        check("127.0.0.1", None);
        check("127.0.0.1:99999", None);
        check("[::1:9", None);
        assert_eq!(HostPort { host: "::1".into(), port: 2 }.to_string(), "[::1]:2");
    }

    #[test]
    fn the_nearest_name_is_only_a_near_one() {
        let known = ["retention.ms", "segment.bytes", "listen"];
        let check = |given: &str, expect: Option<&str>| {
            assert_eq!(nearest(given, known.into_iter()), expect, "{given}");
        };
        check("retention.msec", Some("retention.ms"));
        check("segment-bytes", Some("segment.bytes"));
        check("lisen", Some("listen"));
        check("quota", None);
        check(&"x".repeat(10_000), None);
    }
}
