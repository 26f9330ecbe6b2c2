//! Components that were built before. The tools of Python and JavaScript give other bytes each time, so a plugin whose sources are as
//! they were would have a new digest with each build, and be deployed as if it had changed.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use pelton_streams::Digest;
use sha2::{Digest as _, Sha256};

use super::WIT;
use super::tools::{self, Tool};

/// Components that are kept; the ones that were used last stay.
const KEPT_MAX: usize = 32;
/// Files of a plugin that are read to know it again. One with more is built each time.
const FILES_MAX: usize = 10_000;
/// Bytes of them.
const BYTES_MAX: u64 = 64 << 20;

/// What a component is made of.
pub(super) struct Recipe {
    hash: Sha256,
}

impl Recipe {
    /// Of a tool, for a world of this version's contract.
    pub(super) fn new(tool: &Tool, world: &str) -> Recipe {
        let mut recipe = Recipe { hash: Sha256::new() };
        recipe.add(&format!("{tool:?}"), env!("CARGO_PKG_VERSION").as_bytes());
        recipe.add("world", world.as_bytes());
        for (name, text) in WIT {
            recipe.add(name, text.as_bytes());
        }
        recipe
    }

    /// Something of it, by a name.
    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        for part in [name.as_bytes(), bytes] {
            self.hash.update((part.len() as u64).to_be_bytes());
            self.hash.update(part);
        }
    }

    /// All files below a directory but what builds leave there. False: there are too many, or one cannot be read.
    pub(super) fn add_files(&mut self, dir: &Path) -> bool {
        let mut files = BTreeMap::new();
        let mut bytes = 0;
        if collect(dir, &mut files, &mut bytes).is_err() {
            return false;
        }
        for (path, content) in &files {
            self.add(&path.strip_prefix(dir).unwrap_or(path).to_string_lossy(), content);
        }
        true
    }

    /// What was made of it, or what `build` makes of it now, which is kept. Where nothing can be kept it is built.
    pub(super) fn made<E>(self, build: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let Ok(dir) = tools::cache().map(|cache| cache.join("built")) else { return build() };
        self.made_in(&dir, build)
    }

    fn made_in<E>(self, dir: &Path, build: impl FnOnce() -> Result<Vec<u8>, E>) -> Result<Vec<u8>, E> {
        let path = dir.join(format!("{}.wasm", Digest::new(self.hash.finalize().into()).hex()));
        // One that a crash has left in part is built again.
        if let Some(component) = fs::read(&path).ok().and_then(whole) {
            if let Ok(file) = fs::File::options().append(true).open(&path) {
                // Which ones were used last is of no importance where it cannot be noted.
                let _ = file.set_modified(SystemTime::now());
            }
            return Ok(component);
        }
        let component = build()?;
        // A component that is not kept is built again.
        let _ = keep(dir, &path, &component);
        Ok(component)
    }
}

/// A kept component, if what stands behind it is its sum.
fn whole(mut kept: Vec<u8>) -> Option<Vec<u8>> {
    let at = kept.len().checked_sub(32)?;
    let told = kept.split_off(at);
    (told == sum(&kept)).then_some(kept)
}

/// What stands behind a kept component.
fn sum(component: &[u8]) -> [u8; 32] {
    Sha256::digest(component).into()
}

fn collect(dir: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>, bytes: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_left_by_builds = name == "__pycache__" || name.starts_with('.') || name.ends_with(".wasm");
        if is_left_by_builds {
            continue;
        }
        let metadata = fs::metadata(&path)?;
        if metadata.is_dir() {
            collect(&path, files, bytes)?;
        } else if metadata.is_file() {
            *bytes = bytes.saturating_add(metadata.len());
            if *bytes > BYTES_MAX || files.len() >= FILES_MAX {
                return Err(io::ErrorKind::FileTooLarge.into());
            }
            files.insert(path.clone(), fs::read(&path)?);
        }
    }
    Ok(())
}

/// Writes it under another name first, so that nobody reads half of it, and removes what was used longest ago.
fn keep(dir: &Path, path: &Path, component: &[u8]) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(component)?;
    file.write_all(&sum(component))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    let mut kept = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            kept.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    kept.sort();
    let superfluous = kept.len().saturating_sub(KEPT_MAX);
    kept.iter().take(superfluous).try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::toolchain::tools::COMPONENTIZE_PY;
    use std::cell::Cell;
    use std::convert::Infallible;

    #[test]
    fn what_is_as_it_was_is_built_once() {
        let (home, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let builds = Cell::new(0_u8);
        let write = |file: &str, text: &str| fs::write(source.path().join(file), text).unwrap();
        let made = |world: &str| {
            let mut recipe = Recipe::new(&COMPONENTIZE_PY, world);
            assert!(recipe.add_files(source.path()));
            let build = || Ok::<_, Infallible>(vec![builds.replace(builds.get() + 1)]);
            recipe.made_in(&home.path().join("built"), build).unwrap()
        };
        write("plugin.py", "a");
        assert_eq!((made("transform"), made("transform")), (vec![0], vec![0]));
        assert_eq!(made("partitioner"), [1], "of another world");
        // What builds leave is no source.
        write("plugin.wasm", "built");
        fs::create_dir(source.path().join("__pycache__")).unwrap();
        write("__pycache__/plugin.pyc", "compiled");
        assert_eq!(made("transform"), [0]);
        write("plugin.py", "b");
        assert_eq!(made("transform"), [2]);
        fs::create_dir(source.path().join("helpers")).unwrap();
        write("helpers/one.py", "");
        assert_eq!(made("transform"), [3], "a file more, in a directory");
        // What a crash has left of it is not taken for it.
        for entry in fs::read_dir(home.path().join("built")).unwrap() {
            fs::write(entry.unwrap().path(), b"\0asm").unwrap();
        }
        assert_eq!((made("transform"), made("transform")), (vec![4], vec![4]));
        builds.set(0);
        write("plugin.py", "a");
        fs::remove_dir_all(source.path().join("helpers")).unwrap();
        assert_eq!(made("transform"), [0], "as it was at first");
        for n in 0..KEPT_MAX + 5 {
            write("plugin.py", &format!("n{n}"));
            made("transform");
        }
        assert_eq!(fs::read_dir(home.path().join("built")).unwrap().count(), KEPT_MAX);
    }
}
