//! How a setting's text becomes a value and back.

use std::fmt;
use std::path::PathBuf;

use pelton_pipelines::allowed::{AllowedDigests, AllowedKeys};

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

macro_rules! texts {
    ($($ty:ty),*) => { $(
        impl Value for $ty {
            fn parse(text: &str) -> Result<Self, String> {
                text.parse()
            }
            fn render(&self) -> String {
                self.to_string()
            }
        }
    )* };
}
texts!(AllowedDigests, AllowedKeys);

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
}
