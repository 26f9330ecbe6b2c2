//! The server's secrets, by name: a variable of its environment, or a file of a directory. What is behind a name stays here and
//! in the requests that name it.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use pelton_streams::http::{HttpSpec, MAX_SECRET_BYTES, NetworkError};

/// A shorter one would be left out of texts where it is a part of a word.
const MIN_BYTES: usize = 4;
/// What stands for a secret in a text.
const REDACTED: &str = "***";

/// Where secrets are.
#[derive(Debug)]
pub(crate) struct Secrets {
    dir: PathBuf,
}

/// The secrets of a node, by what its plugin calls them. Never printed.
#[derive(Default)]
pub(crate) struct NodeSecrets {
    by_name: BTreeMap<String, Vec<u8>>,
    /// The longest first: one may be a part of another.
    by_length: Vec<Vec<u8>>,
}

impl fmt::Debug for NodeSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.by_name.keys()).finish()
    }
}

impl NodeSecrets {
    fn new(by_name: BTreeMap<String, Vec<u8>>) -> NodeSecrets {
        let mut by_length: Vec<Vec<u8>> = by_name.values().cloned().collect();
        by_length.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
        NodeSecrets { by_name, by_length }
    }

    #[cfg(test)]
    pub(crate) fn of<const N: usize>(secrets: [(&str, &str); N]) -> NodeSecrets {
        NodeSecrets::new(secrets.map(|(name, secret)| (name.to_owned(), secret.into())).into())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.by_name.get(name).map(Vec::as_slice)
    }

    /// The text without them.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut redacted = text.to_owned();
        for secret in &self.by_length {
            // What is no text is in no text.
            let Ok(secret) = std::str::from_utf8(secret) else { continue };
            if redacted.contains(secret) {
                redacted = redacted.replace(secret, REDACTED);
            }
        }
        redacted
    }

    /// The bytes without them.
    pub(crate) fn redact_bytes(&self, mut bytes: Vec<u8>) -> Vec<u8> {
        for secret in &self.by_length {
            let find = |bytes: &[u8]| bytes.windows(secret.len()).position(|window| window == secret);
            let Some(mut at) = find(&bytes) else { continue };
            let (mut redacted, mut rest) = (Vec::with_capacity(bytes.len()), &bytes[..]);
            loop {
                redacted.extend_from_slice(&rest[..at]);
                redacted.extend_from_slice(REDACTED.as_bytes());
                rest = &rest[at + secret.len()..];
                match find(rest) {
                    Some(next) => at = next,
                    None => break,
                }
            }
            redacted.extend_from_slice(rest);
            bytes = redacted;
        }
        bytes
    }
}

/// The variable that has a secret.
fn variable(secret: &str) -> String {
    format!("PELTON_SECRET_{}", secret.to_uppercase().replace('-', "_"))
}

impl Secrets {
    pub(crate) fn new(dir: PathBuf) -> Secrets {
        Secrets { dir }
    }

    /// Those that a node names. Read anew each time, so that a changed one counts from the pipeline's next start on.
    pub(crate) fn of(&self, spec: &HttpSpec) -> Result<NodeSecrets, NetworkError> {
        let found = spec.secrets.iter().map(|(name, secret)| Ok((name.clone(), self.find(name, secret)?)));
        found.collect::<Result<_, NetworkError>>().map(NodeSecrets::new)
    }

    fn find(&self, name: &str, secret: &str) -> Result<Vec<u8>, NetworkError> {
        let bad = |reason: String| NetworkError::BadSecret { secret: secret.to_owned(), reason };
        let path = self.dir.join(secret);
        let value = match std::env::var(variable(secret)) {
            Ok(value) => value.into_bytes(),
            Err(std::env::VarError::NotUnicode(_)) => {
                return Err(bad(format!("{} is no text", variable(secret))));
            }
            Err(std::env::VarError::NotPresent) => {
                let mut value = Vec::new();
                let read = std::fs::File::open(&path)
                    .and_then(|file| file.take(MAX_SECRET_BYTES as u64 + 1).read_to_end(&mut value));
                match read {
                    Ok(_) => {}
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                        let (name, secret, dir) =
                            (name.to_owned(), secret.to_owned(), self.dir.display().to_string());
                        let variable = variable(&secret);
                        return Err(NetworkError::NoSecret { name, secret, dir, variable });
                    }
                    Err(error) => return Err(bad(format!("read {}: {error}", path.display()))),
                }
                // Editors end a file with a line break, which no header can have.
                let end = value.strip_suffix(b"\n").map_or(value.len(), <[u8]>::len);
                value.truncate(end);
                let end = value.strip_suffix(b"\r").map_or(value.len(), <[u8]>::len);
                value.truncate(end);
                value
            }
        };
        if value.len() < MIN_BYTES || value.len() > MAX_SECRET_BYTES {
            return Err(bad(format!(
                "it has {} bytes, but must have {MIN_BYTES} to {MAX_SECRET_BYTES}",
                value.len()
            )));
        }
        if value.iter().any(|byte| *byte < 0x20 || *byte == 0x7f) {
            return Err(bad("it has control characters, which no header can have".to_owned()));
        }
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_has_another_one_in_it_is_left_out_whole() {
        let secrets = NodeSecrets::of([("a", "s3cret"), ("b", "s3cret-and-more")]);
        let text = "one s3cret-and-more, one s3cret, s3cre";
        assert_eq!(secrets.redact(text), "one ***, one ***, s3cre");
        assert_eq!(secrets.redact_bytes(text.into()), b"one ***, one ***, s3cre");
        assert_eq!(secrets.redact_bytes(b"\xffs3crets3cret".to_vec()), b"\xff******");
        assert_eq!(NodeSecrets::default().redact_bytes(text.into()), text.as_bytes());
    }

    #[test]
    fn secrets_are_files_and_what_is_none_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, value: &[u8]| std::fs::write(dir.path().join(name), value).expect("writes");
        write("token", b"s3cret value\r\n");
        write("short", b"abc\n");
        write("lines", b"one\ntwo");
        let secrets = Secrets::new(dir.path().to_owned());
        let of = |secret: &str| {
            let named = BTreeMap::from([("name".to_owned(), secret.to_owned())]);
            secrets.of(&HttpSpec { secrets: named, ..HttpSpec::default() })
        };
        let found = of("token").expect("is there");
        assert_eq!(found.get("name"), Some(&b"s3cret value"[..]));
        assert_eq!(found.redact("got `s3cret value`, s3cret value"), "got `***`, ***");
        assert_eq!(format!("{found:?}"), "{\"name\"}");
        let refused = |secret: &str| of(secret).map(|_| ()).expect_err("is refused").to_string();
        assert!(
            refused("other").contains("PELTON_SECRET_OTHER") && refused("other").contains("`secrets.name`")
        );
        assert_eq!(
            refused("short"),
            "the secret `short` cannot be used: it has 3 bytes, but must have 4 to 8192"
        );
        assert!(refused("lines").contains("control characters"));
    }
}
