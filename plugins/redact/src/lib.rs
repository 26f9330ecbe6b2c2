//! Masks and hashes personal data: members of JSON values, and keys.

use fields::{Action, Json, Path, Rewrite, quote, targets};
use hmac::{Hmac, Mac as _};
use pelton_sdk::{Config, Failure, Out, Record, Transform};
use sha2::Sha256;

/// Bytes of a secret at the least: a shorter one can be found by trying all.
const MIN_SECRET: usize = 16;

/// The plugin.
#[derive(Default)]
pub struct Redact(Option<Settings>);

struct Settings {
    members: Rewrite,
    /// Whether a value is looked at.
    has_members: bool,
    key: Option<Way>,
}

/// What a value becomes.
#[derive(Clone)]
enum Way {
    Mask { keep: usize },
    Hash(Hmac<Sha256>),
}

impl Transform for Redact {
    fn configure(&mut self, config: &Config) -> Result<(), String> {
        let get = |key| config.get(key).unwrap_or_default();
        let secret = get("secret");
        let hash = targets(get("hash")).map_err(|error| format!("hash {error}"))?;
        let mask = targets(get("mask")).map_err(|error| format!("mask {error}"))?;
        if mask.is_empty() && hash.is_empty() {
            return Err("neither mask nor hash is set, so nothing would be done".to_owned());
        }
        if !hash.is_empty() && secret.len() < MIN_SECRET {
            return Err(format!(
                "secret has {} bytes, but must have {MIN_SECRET} or more: without one, whoever has a list of \
                 addresses or numbers can hash them, too",
                secret.len()
            ));
        }
        let keyed =
            Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|error| format!("secret: {error}"))?;
        let ways = [
            ("mask", mask, Way::Mask { keep: config.parse("keep")?.unwrap_or(0) }),
            ("hash", hash, Way::Hash(keyed)),
        ];
        let mut settings = Settings { members: Rewrite::default(), has_members: false, key: None };
        for (name, targets, way) in ways {
            for target in targets {
                settings.add(target, way.clone()).map_err(|error| format!("{name} {error}"))?;
            }
        }
        self.0 = Some(settings);
        Ok(())
    }

    fn record(&mut self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), Failure> {
        let settings = self.0.as_ref().ok_or_else(|| Failure::Fatal("it was not configured".to_owned()))?;
        settings.redact(record, out).map_err(Failure::Reject)
    }
}

impl Settings {
    fn add(&mut self, target: Option<Path>, way: Way) -> Result<(), String> {
        match target {
            None if self.key.is_some() => Err("has `key`, which is named twice".to_owned()),
            None => {
                self.key = Some(way);
                Ok(())
            }
            Some(path) => {
                self.has_members = true;
                let name = path.to_string();
                self.members
                    .add(&path, Action::Replace(Box::new(move |json, out| way.member(&name, json, out))))
            }
        }
    }

    fn redact(&self, record: Record<'_>, out: &mut Out<'_>) -> Result<(), String> {
        let mut value = Vec::new();
        let changed = match record.value() {
            Some(json) if self.has_members => self.members.write(Json::parse(json)?, &mut value)?,
            Some(_) | None => false,
        };
        let key = match (&self.key, record.key()) {
            (Some(way), Some(key)) => Some(way.key(key)?),
            (Some(_), None) | (None, _) => None,
        };
        let emitted = if changed { out.value(record, value) } else { out.keep(record) };
        if let Some(key) = key {
            emitted.key(key);
        }
        Ok(())
    }
}

impl Way {
    /// Null stays null; anything else becomes a text.
    fn member(&self, name: &str, json: Json<'_>, out: &mut Vec<u8>) -> Result<(), String> {
        if json.is_null() {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        if json.is_composite() {
            return Err(format!(
                "`{name}` is a list or an object: name its members, or its items as `{name}.*`"
            ));
        }
        let text = json.string().transpose()?;
        quote(&self.text(text.as_deref().unwrap_or(json.text())), out);
        Ok(())
    }

    fn key(&self, key: &[u8]) -> Result<String, String> {
        match (self, std::str::from_utf8(key)) {
            (Way::Hash(_), _) => Ok(self.hashed(key)),
            (Way::Mask { .. }, Ok(text)) => Ok(self.text(text)),
            (Way::Mask { .. }, Err(_)) => {
                Err("the key is not UTF-8, so it has no letters to mask".to_owned())
            }
        }
    }

    fn text(&self, text: &str) -> String {
        let Way::Mask { keep } = self else { return self.hashed(text.as_bytes()) };
        let count = text.chars().filter(|c| c.is_alphanumeric()).count();
        let mut left = if count <= *keep { count } else { count - keep };
        let star = |c: char| {
            let is_masked = c.is_alphanumeric() && left > 0;
            left -= usize::from(is_masked);
            if is_masked { '*' } else { c }
        };
        text.chars().map(star).collect()
    }

    /// The HMAC in hex.
    fn hashed(&self, bytes: &[u8]) -> String {
        let Way::Hash(keyed) = self else { return String::new() };
        let mac = keyed.clone().chain_update(bytes).finalize().into_bytes();
        let hex = |digit: u8| char::from(b"0123456789abcdef"[usize::from(digit)]);
        mac.iter().flat_map(|byte| [hex(byte >> 4), hex(byte & 15)]).collect()
    }
}

pelton_sdk::export_transform!(Redact);

#[cfg(test)]
mod tests {
    use pelton_sdk::testing::{RunError, TestRecord, run};

    use super::*;

    const SECRET: &str = "0123456789abcdef";

    fn config<'a>(of: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let defaults = [("mask", ""), ("keep", "0"), ("hash", ""), ("secret", "")];
        let rest = defaults.into_iter().filter(|(key, _)| of.iter().all(|(given, _)| given != key));
        of.iter().copied().chain(rest).collect()
    }

    fn one(of: &[(&str, &str)], record: TestRecord) -> TestRecord {
        let out = run::<Redact>(&config(of), &[record]).expect("is processed");
        assert_eq!(out.len(), 1);
        out[0].clone()
    }

    #[test]
    fn texts_and_numbers_become_stars() {
        for (keep, value, expect) in [
            ("0", r#"{"a":"Zo\u00eb, 12 b.","b" :1.50}"#, r#"{"a":"***, ** *.","b":1.50}"#),
            ("4", r#"{"a":"1234-5678 9012"}"#, r#"{"a":"****-**** 9012"}"#),
            ("4", r#"{"a":"9012"}"#, r#"{"a":"****"}"#),
            ("4", r#"{"a":123456}"#, r#"{"a":"**3456"}"#),
            ("0", r#"{"a":true,"c":[1]}"#, r#"{"a":"****","c":[1]}"#),
            ("0", r#"{"a":null}"#, r#"{"a":null}"#),
            ("0", r#"{"b": 1}"#, r#"{"b": 1}"#),
        ] {
            let out = one(&[("mask", "json:a"), ("keep", keep)], TestRecord::value(value));
            assert_eq!(out.text(), expect, "{value}");
        }
        let people = TestRecord::value(r#"{"p":[{"n":"ab"},{"n":"c"}]}"#);
        assert_eq!(one(&[("mask", "json:p.*.n")], people).text(), r#"{"p":[{"n":"**"},{"n":"*"}]}"#);
    }

    /// The hashes are what Python's `hmac.new(secret, text, "sha256").hexdigest()` gives.
    #[test]
    fn hashes_are_those_of_others() {
        let hashed = "d10208a09d2f90fd654923a0f445fe116c55ef4e875d48d709f249d562b65d4e";
        let of = [("hash", "json:email, key"), ("secret", SECRET), ("mask", "json:name")];
        let given = TestRecord {
            timestamp: 7,
            ..TestRecord::value(r#"{"email":"zo\u00eb@x.org","name":"Zo"}"#).with_key("zoë@x.org")
        };
        let expect = TestRecord {
            key: Some(hashed.into()),
            value: Some(format!(r#"{{"email":"{hashed}","name":"**"}}"#).into()),
            ..given.clone()
        };
        assert_eq!(one(&of, given), expect);
        // A delete of a key is one of its hash.
        let gone = one(&of, TestRecord::default().with_key("zoë@x.org"));
        assert_eq!((gone.key.as_deref(), gone.value), (Some(hashed.as_bytes()), None));
        assert_eq!(one(&of, TestRecord::value("{}")), TestRecord::value("{}"));
        assert_eq!(
            one(&[("mask", "key"), ("keep", "2")], TestRecord::value("x").with_key("abcd")).key.as_deref(),
            Some(&b"**cd"[..])
        );
    }

    #[test]
    fn records_that_do_not_fit() {
        let given = [r#"{"a":["x"]}"#, r#"{"a":"#, r#"{"a":1}"#, r#"{"a":"\ud800"}"#].map(TestRecord::value);
        let Err(RunError::Rejected(reasons)) = run::<Redact>(&config(&[("mask", "json:a")]), &given) else {
            panic!("is rejected")
        };
        let [(0, list), (1, not_json), (3, half)] = &reasons[..] else { panic!("{reasons:?}") };
        assert_eq!(list, "`json:a` is a list or an object: name its members, or its items as `json:a.*`");
        assert!(
            not_json.starts_with("the value is not JSON") && half.contains("surrogate"),
            "{not_json} {half}"
        );
        let odd = [TestRecord::value("{}").with_key(b"\xff")];
        assert!(matches!(run::<Redact>(&config(&[("mask", "key")]), &odd), Err(RunError::Rejected(_))));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (of, expect) in [
            (&[][..], "neither mask nor hash is set"),
            (&[("hash", "json:a"), ("secret", "short")], "secret has 5 bytes"),
            (
                &[("hash", "json:a"), ("mask", "json:a"), ("secret", SECRET)],
                "hash has `json:a`, which is named twice",
            ),
            (&[("hash", "key"), ("mask", "key"), ("secret", SECRET)], "hash has `key`, which is named twice"),
            (&[("mask", "email")], "mask has `email` at character 1, where a field should be"),
            (&[("mask", "json:a"), ("keep", "-1")], "keep is `-1`"),
        ] {
            let Err(RunError::Configure(error)) = run::<Redact>(&config(of), &[]) else { panic!("{expect}") };
            assert!(error.starts_with(expect), "{error}");
        }
    }
}
