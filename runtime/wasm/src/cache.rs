//! Compiled code on disk: one file for each component and engine configuration.
//!
//! Loading compiled code trusts it as much as the server's own binary. So a file is only read from a directory that no
//! other user may write to, and only if its checksum matches: a component whose file was torn by a power cut is
//! compiled again.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use pelton_streams::Digest;
use sha2::{Digest as _, Sha256};
use wasmtime::component::Component;

/// The start of each file, before the sha256 of the code and the code. The last letter is the version of this layout.
const MAGIC: &[u8; 8] = b"PLTNCWA1";
const HEADER_BYTES: usize = MAGIC.len() + 32;

/// A cache that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The directory cannot be created or read.
    #[error("the directory for compiled plugins {} cannot be used: {error}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Other users could put code into it.
    #[error(
        "the directory for compiled plugins {} can be written by other users (mode {mode:o}), who could then run code as \
         this server: chmod it to 700",
        path.display()
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
}

/// The extension of a file that is being written, or was when its process ended.
const PARTIAL: &str = "partial";

/// What compiled code depends on besides its component: wasmtime's full version, the machine, and the engine's
/// settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EngineBuild(String);

impl EngineBuild {
    pub(crate) fn of(engine: &wasmtime::Engine) -> EngineBuild {
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        EngineBuild(format!("{}-{:016x}", wasmtime_environ::VERSION, hasher.finish()))
    }
}

/// A directory of compiled code: `<sha256 of the component>/<version of wasmtime>-<settings>.cwasm`.
#[derive(Debug)]
pub struct CodeCache {
    dir: PathBuf,
}

impl CodeCache {
    /// Opens a cache, and creates its directory if there is none.
    ///
    /// # Errors
    /// The directory cannot be used, or not safely.
    pub fn open(dir: impl Into<PathBuf>) -> Result<CodeCache, CacheError> {
        let dir = dir.into();
        let look = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
            fs::metadata(&dir)
        };
        let mode = look().map_err(|error| CacheError::Io { path: dir.clone(), error })?.mode() & 0o7777;
        if mode & 0o022 != 0 {
            return Err(CacheError::NotPrivate { path: dir, mode });
        }
        let cache = CodeCache { dir };
        if let Err(error) = cache.remove_partial() {
            tracing::warn!(path = %cache.dir.display(), %error, "cannot remove incomplete files of compiled plugins");
        }
        Ok(cache)
    }

    /// Removes the incomplete files of processes that ended while writing.
    fn remove_partial(&self) -> io::Result<()> {
        for component in fs::read_dir(&self.dir)? {
            let component = component?;
            if !component.file_type()?.is_dir() {
                continue;
            }
            for file in fs::read_dir(component.path())? {
                let path = file?.path();
                if is_abandoned(&path) {
                    fs::remove_file(&path)?;
                }
            }
        }
        Ok(())
    }

    /// Removes all compiled code of a component.
    ///
    /// # Errors
    /// What the file system says.
    pub fn remove(&self, digest: &Digest) -> io::Result<()> {
        match fs::remove_dir_all(self.dir.join(digest.hex())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The compiled component; `None` if there is no file, or one that cannot be used, so that it is compiled again.
    pub(crate) fn load(
        &self,
        engine: &wasmtime::Engine,
        digest: &Digest,
        build: &EngineBuild,
    ) -> Option<Component> {
        let path = self.path(digest, build);
        let bytes = fs::read(&path).ok()?;
        let (header, code) = bytes.split_at_checked(HEADER_BYTES)?;
        let (magic, checksum) = header.split_at(MAGIC.len());
        if magic != MAGIC || checksum != Sha256::digest(code).as_slice() {
            tracing::warn!(path = %path.display(), "a compiled plugin is damaged; compiling it again");
            return None;
        }
        deserialize(engine, code)
            .inspect_err(|error| {
                tracing::warn!(path = %path.display(), %error, "a compiled plugin cannot be loaded; compiling it again");
            })
            .ok()
    }

    /// Writes a compiled component to disk. After a failure the next start compiles it again.
    pub(crate) fn store(&self, component: &Component, digest: &Digest, build: &EngineBuild) {
        let path = self.path(digest, build);
        let kept = component
            .serialize()
            .map_err(|error| io::Error::other(error.to_string()))
            .and_then(|code| write_whole(&path, &code))
            .and_then(|()| remove_others(&path));
        if let Err(error) = kept {
            tracing::warn!(path = %path.display(), %error, "cannot keep a compiled plugin, or remove older builds of it");
        }
    }

    fn path(&self, digest: &Digest, EngineBuild(build): &EngineBuild) -> PathBuf {
        self.dir.join(digest.hex()).join(format!("{build}.cwasm"))
    }
}

/// Whether a file is incomplete and its process has ended: `<build>.<process>-<write>.partial`.
fn is_abandoned(path: &Path) -> bool {
    let writer = path.file_stem().map(Path::new).and_then(Path::extension).and_then(|part| part.to_str());
    let process =
        writer.and_then(|writer| writer.split_once('-')).and_then(|(process, _)| process.parse::<u32>().ok());
    let is_partial = path.extension().is_some_and(|extension| extension == PARTIAL);
    let runs =
        |process: u32| process != std::process::id() && Path::new("/proc").join(process.to_string()).exists();
    is_partial && !process.is_some_and(runs)
}

/// Removes the code that other builds have compiled of the same component.
fn remove_others(path: &Path) -> io::Result<()> {
    let Some(dir) = path.parent() else { return Ok(()) };
    for file in fs::read_dir(dir)? {
        let file = file?.path();
        if file != path && file.extension() == path.extension() {
            fs::remove_file(&file)?;
        }
    }
    Ok(())
}

/// Writes beside the file and renames: another server on the same directory sees all of it or nothing.
fn write_whole(path: &Path, code: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or_else(|| io::Error::other("no directory"))?;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    // Several threads may write the same component at once.
    static WRITES: AtomicU64 = AtomicU64::new(0);
    let write = WRITES.fetch_add(1, Ordering::Relaxed);
    let partial = path.with_extension(format!("{}-{write}.{PARTIAL}", std::process::id()));
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial)?;
        file.write_all(MAGIC)?;
        file.write_all(Sha256::digest(code).as_slice())?;
        file.write_all(code)?;
        file.sync_all()?;
        fs::rename(&partial, path)
    };
    write().inspect_err(|_| {
        // The error to report is that of the write.
        let _gone: io::Result<()> = fs::remove_file(&partial);
    })
}

#[expect(unsafe_code, reason = "loading compiled code is unsafe by nature; see the safety argument")]
fn deserialize(engine: &wasmtime::Engine, code: &[u8]) -> wasmtime::Result<Component> {
    // SAFETY: `code` must be what `Component::serialize` gave, unchanged. It comes from a file in a directory that only
    // this user may write to (checked by `CodeCache::open`), which only `CodeCache::store` writes, and its checksum
    // was compared just now. That it was made by the same wasmtime and configuration is checked by wasmtime.
    unsafe { Component::deserialize(engine, code) }
}
