//! Which components a server runs: all of them, or those alone whose digest is listed or that somebody has signed whose key is
//! listed. Signatures are those of minisign, which signs a component's bytes; the text of a `.minisig` file is kept with the
//! component, so that a list that has become shorter holds for what was pushed before it.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use minisign_verify::{Error, PublicKey, Signature};
use pelton_streams::Digest;

/// Bytes of the text of a signature: two comments and two lines of base64.
pub const SIGNATURE_BYTES_MAX: usize = 4096;

/// Digests that a server runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedDigests(BTreeSet<Digest>);

/// A public key of minisign, as its owner writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Key {
    text: String,
    key: PublicKey,
}

/// Keys whose owners may say what a server runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedKeys(Vec<Key>);

/// The items of a list with commas; empty ones are passed over. A text without an item is no list: it would be read as leave to
/// run everything.
fn items(text: &str) -> Result<Vec<&str>, String> {
    let items: Vec<&str> = text.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
    if items.is_empty() && !text.is_empty() {
        return Err("there is nothing in the list; leave the setting out to allow every component".to_owned());
    }
    Ok(items)
}

impl FromStr for AllowedDigests {
    /// What to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<AllowedDigests, String> {
        let digest = |item: &str| {
            item.parse().map_err(|error| {
                format!("{error}; write digests with commas between them (`pelton plugin list` shows them)")
            })
        };
        items(text)?.into_iter().map(digest).collect::<Result<_, _>>().map(AllowedDigests)
    }
}

impl fmt::Display for AllowedDigests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<String> = self.0.iter().map(Digest::to_string).collect();
        f.write_str(&all.join(","))
    }
}

impl FromStr for AllowedKeys {
    /// What to write instead.
    type Err = String;

    fn from_str(text: &str) -> Result<AllowedKeys, String> {
        let key = |item: &str| {
            let key = PublicKey::from_base64(item).map_err(|error| {
                format!(
                    "`{item}` is no public key of minisign ({error}); write the second lines of `.pub` files, with commas between \
                     them"
                )
            })?;
            Ok(Key { text: item.to_owned(), key })
        };
        items(text)?.into_iter().map(key).collect::<Result<_, String>>().map(AllowedKeys)
    }
}

impl fmt::Display for AllowedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<&str> = self.0.iter().map(|key| key.text.as_str()).collect();
        f.write_str(&all.join(","))
    }
}

/// What a server runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList {
    pub digests: AllowedDigests,
    pub keys: AllowedKeys,
}

/// Why a component may not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotAllowed {
    #[error("its digest is not in `pelton.plugin.allow.digests`; who runs this server may add it there")]
    NotListed,
    #[error(
        "it is not signed, and this server runs what a key of `pelton.plugin.allow.keys` has signed: sign it (`minisign -S -m FILE`), \
         and push it with FILE.minisig beside it; or have its digest added to `pelton.plugin.allow.digests`"
    )]
    Unsigned,
    #[error(
        "no key of `pelton.plugin.allow.keys` has made its signature for these bytes: sign the component that is pushed with a key \
         that this server knows, or have the key added there"
    )]
    WrongSignature,
    #[error(
        "its signature is of minisign's legacy kind, of the bytes themselves, which is not taken: sign the component again with a \
         current minisign, without `-l` (`minisign -S -m FILE` signs a hash of it)"
    )]
    Legacy,
    #[error(
        "its signature cannot be read ({0}): it must be the text of a .minisig file, of at most {SIGNATURE_BYTES_MAX} bytes"
    )]
    BadSignature(String),
}

impl AllowList {
    /// Whether it allows everything: nobody has listed anything.
    pub fn is_open(&self) -> bool {
        self.digests.0.is_empty() && self.keys.0.is_empty()
    }

    /// Whether a component, of which the caller has checked the digest, may run.
    ///
    /// # Errors
    /// Why not.
    pub fn check(
        &self,
        digest: &Digest,
        component: &[u8],
        signature: Option<&str>,
    ) -> Result<(), NotAllowed> {
        if self.is_open() || self.digests.0.contains(digest) {
            return Ok(());
        }
        if self.keys.0.is_empty() {
            return Err(NotAllowed::NotListed);
        }
        let signature = read_signature(signature.ok_or(NotAllowed::Unsigned)?)?;
        let is_by = |key: &Key| key.key.verify(component, &signature, false).is_ok();
        if self.keys.0.iter().any(is_by) {
            return Ok(());
        }
        // By the key that has made it; the others say that it is not theirs.
        let is_legacy = |key: &Key| {
            matches!(key.key.verify(component, &signature, false), Err(Error::UnexpectedAlgorithm))
        };
        if self.keys.0.iter().any(is_legacy) {
            Err(NotAllowed::Legacy)
        } else {
            Err(NotAllowed::WrongSignature)
        }
    }
}

/// Reads the text of a `.minisig` file.
///
/// # Errors
/// It is none.
pub fn read_signature(text: &str) -> Result<Signature, NotAllowed> {
    if text.len() > SIGNATURE_BYTES_MAX {
        return Err(NotAllowed::BadSignature(format!("it has {} bytes", text.len())));
    }
    Signature::decode(text).map_err(|error| NotAllowed::BadSignature(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest_of;

    /// Of minisign's own documentation: the key, and its signature of `test`.
    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
    const SIGNATURE: &str = "untrusted comment: signature from minisign secret key\n\
        RUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
        trusted comment: timestamp:1633700835\tfile:test\tprehashed\n\
        wLMDjy9FLAuxZ3q4NlEvkgtyhrr0gtTu6KC4KBJdITbbOeAi1zBIYo0v4iTgt8jJpIidRJnp94ABQkJAgAooBQ==";
    /// A key of another pair.
    const OTHER: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO4";

    /// A key with another number.
    const OTHER_NUMBER: &str = "RWQe6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    fn list(digests: &str, keys: &str) -> AllowList {
        AllowList { digests: digests.parse().unwrap(), keys: keys.parse().unwrap() }
    }

    fn check(list: &AllowList, component: &[u8], signature: Option<&str>) -> Result<(), NotAllowed> {
        list.check(&digest_of(component), component, signature)
    }

    #[test]
    fn what_is_listed_or_signed_runs_and_nothing_else() {
        let test = digest_of(b"test").to_string();
        assert_eq!(check(&AllowList::default(), b"anything", None), Ok(()));
        assert_eq!(check(&AllowList::default(), b"anything", Some("no signature")), Ok(()));
        let by_digest = list(&format!(" , {test},"), "");
        assert_eq!(check(&by_digest, b"test", None), Ok(()));
        assert_eq!(check(&by_digest, b"tesT", Some(SIGNATURE)), Err(NotAllowed::NotListed));
        let by_key = list("", KEY);
        assert_eq!(check(&by_key, b"test", Some(SIGNATURE)), Ok(()));
        assert_eq!(check(&by_key, b"test", None), Err(NotAllowed::Unsigned));
        assert_eq!(check(&by_key, b"tesT", Some(SIGNATURE)), Err(NotAllowed::WrongSignature));
        assert_eq!(check(&list("", OTHER), b"test", Some(SIGNATURE)), Err(NotAllowed::WrongSignature));
        assert_eq!(check(&list("", &format!("{OTHER}, {KEY}")), b"test", Some(SIGNATURE)), Ok(()));
        let forged = SIGNATURE.replace("file:test", "file:else");
        assert_eq!(check(&by_key, b"test", Some(&forged)), Err(NotAllowed::WrongSignature));
        for text in ["", "no signature", &SIGNATURE[..90], &"x".repeat(SIGNATURE_BYTES_MAX + 1)] {
            let refused = check(&by_key, b"test", Some(text)).unwrap_err();
            assert!(matches!(refused, NotAllowed::BadSignature(_)), "{text}: {refused}");
        }
        // As `minisign -S -l` writes it: `Ed`, not `ED`, before the number of the key.
        let legacy = SIGNATURE.replace("\nRUQf", "\nRWQf");
        assert_eq!(check(&by_key, b"test", Some(&legacy)), Err(NotAllowed::Legacy));
        assert_eq!(check(&list("", OTHER_NUMBER), b"test", Some(&legacy)), Err(NotAllowed::WrongSignature));
        // Either will do.
        let both = list(&digest_of(b"listed").to_string(), KEY);
        assert_eq!(check(&both, b"listed", None), Ok(()));
        assert_eq!(check(&both, b"test", Some(SIGNATURE)), Ok(()));
    }

    #[test]
    fn lists_are_read_and_written_as_texts() {
        let digest = digest_of(b"a").to_string();
        assert_eq!(digest.parse::<AllowedDigests>().unwrap().to_string(), digest);
        assert_eq!(
            format!("{KEY} ,{OTHER}").parse::<AllowedKeys>().unwrap().to_string(),
            format!("{KEY},{OTHER}")
        );
        assert!("sha256:1".parse::<AllowedDigests>().unwrap_err().contains("is not a digest"));
        assert_eq!("".parse::<AllowedDigests>().unwrap(), AllowedDigests::default());
        for nothing in [",", " ", " , ,"] {
            assert!(nothing.parse::<AllowedDigests>().unwrap_err().contains("nothing in the list"));
            assert!(nothing.parse::<AllowedKeys>().unwrap_err().contains("nothing in the list"));
        }
        assert!("RWQ".parse::<AllowedKeys>().unwrap_err().contains("`RWQ` is no public key of minisign"));
    }
}
