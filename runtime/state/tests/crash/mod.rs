//! A crash of the process, as the files of a database see it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The files of a database with their sizes and when they were written. What it tells of itself is none of them.
fn files(dir: &Path) -> std::io::Result<BTreeMap<OsString, (u64, SystemTime)>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (name, facts) = (entry.file_name(), entry.metadata()?);
        if facts.is_file() && !name.to_string_lossy().starts_with("LO") {
            files.insert(name, (facts.len(), facts.modified()?));
        }
    }
    Ok(files)
}

/// Copies the files unless some of them are written or deleted meanwhile.
fn copied(dir: &Path, to: &Path) -> std::io::Result<bool> {
    std::fs::create_dir(to)?;
    let before = files(dir)?;
    for name in before.keys() {
        std::fs::copy(dir.join(name), to.join(name))?;
    }
    Ok(files(dir)? == before)
}

/// What a crash leaves: the files as they are now, once what goes on in the background has ended. What is in memory
/// only is not among them; closing would write it.
pub(crate) fn crashed(dir: &Path, to: PathBuf) -> PathBuf {
    loop {
        match copied(dir, &to) {
            Ok(true) => return to,
            Ok(false) => {}
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => panic!("copy {} to {}: {error}", dir.display(), to.display()),
        }
        std::fs::remove_dir_all(&to).expect("it is removed");
    }
}
