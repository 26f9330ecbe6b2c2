//! The pelton command line against a running broker, as a user types it.

use crate::broker::Broker;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs commands.
#[derive(Clone, Debug)]
pub struct Cli {
    /// The binary.
    pub binary: PathBuf,
    /// `--bootstrap-server`.
    pub bootstrap: String,
    /// `--http-server`.
    pub http: String,
    /// The broker's data directory, where the token is.
    pub data_dir: PathBuf,
    /// Where plugins are built.
    pub build_dir: PathBuf,
}

/// What a command left behind.
#[derive(Debug)]
pub struct Ended {
    /// What was run.
    pub command: String,
    /// Its exit code; -1 for a signal.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Cli {
    /// For a broker with HTTP.
    ///
    /// # Errors
    /// The broker has no HTTP port.
    pub fn new(binary: &Path, broker: &Broker, data_dir: &Path, build_dir: &Path) -> Result<Cli> {
        Ok(Cli {
            binary: binary.to_owned(),
            bootstrap: broker.address.clone(),
            http: broker.http.clone().context("the broker has no HTTP port")?,
            data_dir: data_dir.to_owned(),
            build_dir: build_dir.to_owned(),
        })
    }

    /// Runs a command and waits for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn run(&self, args: &[&str]) -> Result<Ended> {
        let mut command = Command::new(&self.binary);
        command.args(args).stdin(Stdio::null());
        command.env("PELTON_BOOTSTRAP_SERVER", &self.bootstrap).env("PELTON_HTTP_SERVER", &self.http);
        command.env("PELTON_DATA_DIR", &self.data_dir).env("CARGO_TARGET_DIR", &self.build_dir);
        let output = command.output().with_context(|| format!("run {}", self.binary.display()))?;
        Ok(Ended {
            command: format!("pelton {}", args.join(" ")),
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that must succeed; what it printed.
    ///
    /// # Errors
    /// It did not succeed.
    pub fn ok(&self, args: &[&str]) -> Result<String> {
        let ended = self.run(args)?;
        ensure!(ended.code == 0, "`{}` ended with {}: {}", ended.command, ended.code, ended.stderr);
        Ok(ended.stdout)
    }

    /// Runs a command that prints JSON.
    ///
    /// # Errors
    /// It did not succeed, or printed something else.
    pub fn json(&self, args: &[&str]) -> Result<Value> {
        let text = self.ok(args)?;
        serde_json::from_str(&text).with_context(|| format!("`pelton {}` printed {text}", args.join(" ")))
    }

    /// A command that must be refused with this exit code and name all of these on standard error, and print nothing.
    ///
    /// # Errors
    /// It was not refused like that.
    pub fn refused(&self, args: &[&str], code: i32, named: &[&str]) -> Result<()> {
        let ended = self.run(args)?;
        let Ended { command, stderr, stdout, .. } = &ended;
        ensure!(ended.code == code, "`{command}` ended with {}, not {code}: {stdout}{stderr}", ended.code);
        for text in named {
            ensure!(stderr.contains(text), "`{command}` says nothing of `{text}`: {stderr}");
        }
        ensure!(stdout.is_empty(), "`{command}` was refused and printed {stdout}");
        ensure!(!stderr.contains("panicked"), "`{command}` panicked: {stderr}");
        Ok(())
    }

    /// `pelton pipeline describe NAME --json`.
    ///
    /// # Errors
    /// There is none.
    pub fn pipeline(&self, name: &str) -> Result<Value> {
        self.json(&["pipeline", "describe", name, "--json"])
    }
}
