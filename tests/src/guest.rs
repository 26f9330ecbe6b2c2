//! Plugins of the tests, built as a user builds them.

use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The source of a guest.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("guests").join(name)
}

/// Builds a guest with `pelton plugin build`; its component. The build directory should be apart from other builds, so that
/// nobody waits for a lock.
///
/// # Errors
/// It does not build.
pub fn build(binary: &Path, name: &str, build_dir: &Path, to: &Path) -> Result<PathBuf> {
    let (source, component) = (source(name), to.join(format!("{name}.wasm")));
    let mut command = Command::new(binary);
    command.args(["plugin", "build"]).arg(&source).arg("--output").arg(&component);
    let built = command.env("CARGO_TARGET_DIR", build_dir).output().context("build the guest")?;
    ensure!(built.status.success(), "build {}: {}", source.display(), String::from_utf8_lossy(&built.stderr));
    Ok(component)
}
