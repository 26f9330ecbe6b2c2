//! Counts and seeds from the environment, so that a failing run can be repeated and a long one asked for.

use anyhow::{Context, Result};
use std::path::PathBuf;
use std::str::FromStr;

/// The value of an environment variable, or the default when it is not set.
///
/// # Errors
/// It is set, but not to such a value.
pub fn from_env<T: FromStr>(name: &str, default: T) -> Result<T> {
    match std::env::var(name) {
        Err(_) => Ok(default),
        Ok(text) => text.parse().ok().with_context(|| format!("{name}={text}: not a value that fits")),
    }
}

/// `PELTON_SEED`, or a random one. It decides when kills come and what records look like, not what the machine does.
///
/// # Errors
/// `PELTON_SEED` is not a number.
pub fn seed() -> Result<u64> {
    from_env("PELTON_SEED", u64::from(rand::random::<u32>()))
}

/// The binary under test, from `PELTON_BIN`.
///
/// # Errors
/// `PELTON_BIN` is not set.
pub fn binary() -> Result<PathBuf> {
    let path =
        std::env::var_os("PELTON_BIN").context("set PELTON_BIN to the pelton binary (./run test does)")?;
    Ok(PathBuf::from(path))
}

/// Where `clients/setup.sh` installs.
pub fn clients_dir() -> std::path::PathBuf {
    let from = |name: &str| std::env::var_os(name).map(std::path::PathBuf::from);
    let cache = || from("XDG_CACHE_HOME").unwrap_or_else(|| from("HOME").unwrap_or_default().join(".cache"));
    from("PELTON_CACHE").unwrap_or_else(|| cache().join("pelton")).join("clients")
}

/// A setting of the broker that a run changes: `PELTON_SET`, `key=value`.
///
/// # Errors
/// It has no `=`.
pub fn other() -> Result<Option<(String, String)>> {
    let Ok(text) = std::env::var("PELTON_SET") else { return Ok(None) };
    let (key, value) =
        text.split_once('=').with_context(|| format!("PELTON_SET: `{text}` is no key=value"))?;
    Ok(Some((key.to_owned(), value.to_owned())))
}
