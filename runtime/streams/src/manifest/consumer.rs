//! What a `[[node]]` says of a plugin that acts on the outside: how records are given to it, and what it may reach.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::values::{ByteSize, Millis};
use super::{ManifestError, raw};
use crate::http::{GrantSpec, HttpLimits, HttpSpec};

/// Instances of a consumer, and so calls at once, when the manifest does not say.
pub const DEFAULT_THREADS: u32 = 4;
/// Each has a thread and an instance.
pub const MAX_THREADS: u32 = 64;
/// Records of one call when the manifest does not say.
pub const DEFAULT_BATCH: u32 = 100;
/// Records that a manifest may want in one call.
pub const MAX_BATCH: u32 = 10_000;
/// Records between the first that is not done and the last that was read, for each partition, when the manifest does not say.
pub const DEFAULT_RECORDS: u32 = 1_000;
/// Each call looks at all of them, and a crash may repeat as many.
pub const MAX_RECORDS: u32 = 100_000;
/// Bytes of those of them that are not done, when the manifest does not say.
pub const DEFAULT_BYTES: ByteSize = ByteSize::mib(16);

/// Which records wait for which.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Parallelism {
    /// A record waits for all before it in its partition.
    #[default]
    Partition,
    /// A record waits for those before it with its key. One without a key waits for none.
    Key,
}

/// How records are given to a consumer, and what it may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumerSpec {
    /// Which records wait for which.
    pub parallelism: Parallelism,
    /// Instances, and so calls at once.
    pub threads: u32,
    /// Records of one call.
    pub batch: u32,
    /// Records of a partition from the first that is not done to the last that was read.
    pub records: u32,
    /// Bytes of those of them that are not done.
    pub bytes: ByteSize,
    /// What it may send, and where.
    pub http: HttpSpec,
}

impl Default for ConsumerSpec {
    fn default() -> ConsumerSpec {
        ConsumerSpec {
            parallelism: Parallelism::default(),
            threads: DEFAULT_THREADS,
            batch: DEFAULT_BATCH,
            records: DEFAULT_RECORDS,
            bytes: DEFAULT_BYTES,
            http: HttpSpec::default(),
        }
    }
}

/// `deliver` of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Deliver {
    threads: Option<u32>,
    batch: Option<u32>,
    records: Option<u32>,
    bytes: Option<ByteSize>,
}

/// `http` of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Http {
    timeout: Option<Millis>,
    requests: Option<u32>,
    response: Option<ByteSize>,
    redirects: Option<u32>,
}

/// The keys of a node that are of consumers alone.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct RawConsumer {
    pub(super) parallelism: Option<String>,
    pub(super) deliver: Option<Deliver>,
    pub(super) allow_http: Option<Vec<GrantSpec>>,
    pub(super) secrets: Option<BTreeMap<String, String>>,
    pub(super) http: Option<Http>,
}

impl RawConsumer {
    /// The first key that is there.
    pub(super) fn any(&self) -> Option<&'static str> {
        let keys = [
            ("parallelism", self.parallelism.is_some()),
            ("deliver", self.deliver.is_some()),
            ("allow_http", self.allow_http.is_some()),
            ("secrets", self.secrets.is_some()),
            ("http", self.http.is_some()),
        ];
        keys.into_iter().find(|(_, is_there)| *is_there).map(|(key, _)| key)
    }

    /// None: nothing is said, so it may be a plugin of another kind.
    pub(super) fn check(self, at: &str) -> Result<Option<ConsumerSpec>, ManifestError> {
        if self.any().is_none() {
            return Ok(None);
        }
        let default = ConsumerSpec::default();
        let parallelism = match self.parallelism.as_deref() {
            None | Some("partition") => Parallelism::Partition,
            Some("key") => Parallelism::Key,
            Some(other) => {
                return Err(raw::unknown(&format!("{at}.parallelism"), other, &["partition", "key"]));
            }
        };
        let Deliver { threads, batch, records, bytes } = self.deliver.unwrap_or_default();
        let number = |key: &str, given: Option<u32>, default: u32, min: u32, max: u32| {
            let given = given.unwrap_or(default);
            raw::range(&format!("{at}.{key}"), given, min, max).map(|()| given)
        };
        let http = self.http.unwrap_or_default();
        Ok(Some(ConsumerSpec {
            parallelism,
            threads: number("deliver.threads", threads, default.threads, 1, MAX_THREADS)?,
            batch: number("deliver.batch", batch, default.batch, 1, MAX_BATCH)?,
            records: number("deliver.records", records, default.records, 1, MAX_RECORDS)?,
            bytes: size(&format!("{at}.deliver.bytes"), bytes, DEFAULT_BYTES, (64 << 10, 1 << 30))?,
            http: HttpSpec {
                grants: grants(at, self.allow_http.unwrap_or_default())?,
                secrets: secrets(at, self.secrets.unwrap_or_default())?,
                limits: http.check(at)?,
            },
        }))
    }
}

impl Http {
    fn check(self, at: &str) -> Result<HttpLimits, ManifestError> {
        let default = HttpLimits::default();
        let at = |key: &str| format!("{at}.http.{key}");
        let timeout_ms = match self.timeout {
            None => default.timeout_ms,
            Some(given) => u32::try_from(given.ms()).unwrap_or(u32::MAX),
        };
        raw::range(&at("timeout"), timeout_ms, 1, 600_000)?;
        let requests = self.requests.unwrap_or(default.requests);
        raw::range(&at("requests"), requests, 1, 256)?;
        let redirects = self.redirects.unwrap_or(default.redirects);
        raw::range(&at("redirects"), redirects, 0, 10)?;
        let default = ByteSize::new(default.response_bytes);
        let response_bytes = size(&at("response"), self.response, default, (1 << 10, 64 << 20))?.bytes();
        Ok(HttpLimits { timeout_ms, requests, response_bytes, redirects })
    }
}

fn size(
    at: &str,
    given: Option<ByteSize>,
    default: ByteSize,
    (min, max): (u64, u64),
) -> Result<ByteSize, ManifestError> {
    let given = given.unwrap_or(default);
    if (min..=max).contains(&given.bytes()) {
        return Ok(given);
    }
    let (min, max) = (ByteSize::new(min), ByteSize::new(max));
    Err(raw::invalid(at, format!("is {given}, but must be between {min} and {max}")))
}

fn grants(at: &str, given: Vec<GrantSpec>) -> Result<Vec<crate::http::Grant>, ManifestError> {
    const MAX: usize = crate::http::MAX_GRANTS;
    if given.len() > MAX {
        let reason = format!("names {} hosts, but at most {MAX} are allowed", given.len());
        return Err(raw::invalid(&format!("{at}.allow_http"), reason));
    }
    let check = |(i, grant): (usize, &GrantSpec)| {
        grant.check().map_err(|reason| raw::invalid(&format!("{at}.allow_http[{i}]"), reason))
    };
    given.iter().enumerate().map(check).collect()
}

fn secrets(at: &str, given: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, ManifestError> {
    let refused = |reason: String| Err(raw::invalid(&format!("{at}.secrets"), reason));
    for (name, secret) in &given {
        // Both are parts of names of files and variables.
        for text in [name, secret] {
            let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
            if text.is_empty() || text.len() > 64 || !text.chars().all(word) {
                return refused(format!(
                    "has `{text}`, but both sides must be names of 1 to 64 of a-z, 0-9, `-`, `_`: the server knows what is \
                     behind the name"
                ));
            }
        }
        // In the name of a variable the two are one character: two secrets would have one value.
        if secret.contains('_') {
            let dashed = secret.replace('_', "-");
            return refused(format!(
                "has the server's secret `{secret}`, whose name has `-` and no `_`: write `{dashed}`"
            ));
        }
    }
    Ok(given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Manifest;

    fn parsed(keys: &str) -> Result<Option<ConsumerSpec>, String> {
        let text = format!(
            "name = 'p'\n[[source]]\nid = 's'\ntopic = 't'\n[[node]]\nid = 'n'\nfrom = 's'\nplugin = 'x'\n{keys}"
        );
        Manifest::parse(&text)
            .map(|mut manifest| manifest.nodes.remove(0).consumer)
            .map_err(|e| e.to_string())
    }

    #[test]
    fn what_is_said_and_what_is_not() {
        assert_eq!(parsed(""), Ok(None));
        let spec = parsed("parallelism = 'key'").expect("is valid").expect("is a consumer");
        assert_eq!(spec, ConsumerSpec { parallelism: Parallelism::Key, ..ConsumerSpec::default() });
        let spec = parsed(
            "allow_http = ['a.example', { host = 'b.example:81', addresses = ['10.0.0.0/8'] }]\nsecrets = { token = 'hook' }\n\
             deliver = { threads = 2, batch = 7, records = 9, bytes = '1 MiB' }\n\
             http = { timeout = '2s', requests = 3, response = '2 KiB', redirects = 1 }",
        );
        let spec = spec.expect("is valid").expect("is a consumer");
        let limits = HttpLimits { timeout_ms: 2_000, requests: 3, response_bytes: 2048, redirects: 1 };
        assert_eq!((spec.threads, spec.batch, spec.records, spec.bytes.bytes()), (2, 7, 9, 1 << 20));
        assert_eq!((spec.http.limits, spec.http.grants.len()), (limits, 2));
        assert_eq!(spec.http.secrets, BTreeMap::from([("token".to_owned(), "hook".to_owned())]));
    }

    #[test]
    fn what_is_refused() {
        for (keys, expect) in [
            ("parallelism = 'record'", "`node[0].parallelism` is `record`; known: `partition`, `key`"),
            ("deliver.threads = 0", "`node[0].deliver.threads` is 0, but must be between 1 and 64"),
            ("deliver.bytes = '1 B'", "`node[0].deliver.bytes` is 1 B, but must be between 64 KiB and 1 GiB"),
            ("http.redirects = 11", "`node[0].http.redirects` is 11, but must be between 0 and 10"),
            (
                "allow_http = ['ok.example', 'http://x']",
                "`node[0].allow_http[1]` is `http://x`, whose port is no port",
            ),
            (
                "secrets = { token = '../etc' }",
                "`node[0].secrets` has `../etc`, but both sides must be names of 1 to 64 of a-z, 0-9, `-`, `_`: the server \
                 knows what is behind the name",
            ),
            (
                "secrets = { a_b = 'hook_token' }",
                "`node[0].secrets` has the server's secret `hook_token`, whose name has `-` and no `_`: write `hook-token`",
            ),
        ] {
            assert_eq!(parsed(keys), Err(expect.to_owned()), "{keys}");
        }
    }
}
