//! The token that changes over HTTP need: made once, kept in `<data-dir>/http.token`, readable by its owner alone.

use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The file's name in the data directory.
pub(crate) const TOKEN_FILE: &str = "http.token";
/// The broker never makes a longer token.
const TOKEN_BYTES_MAX: u64 = 4096;

/// The token file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the token file `{}`: {reason}", path.display())]
pub struct TokenError {
    path: PathBuf,
    reason: String,
}

/// Reads the token of a data directory, or writes the one that `fresh` makes.
pub(crate) fn load_or_create(data_dir: &Path, fresh: impl FnOnce() -> String) -> Result<String, TokenError> {
    let path = data_dir.join(TOKEN_FILE);
    let error = |reason: String| TokenError { path: path.clone(), reason };
    match read(&path) {
        Ok(token) if token.len() >= 16 => Ok(token),
        Ok(_) => Err(error("it holds fewer than 16 characters; delete it to have a new one made".to_owned())),
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => {
            let token = fresh();
            write(&path, &token).map_err(|failed| error(failed.to_string()))?;
            Ok(token)
        }
        Err(failed) => Err(error(failed.to_string())),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim().to_owned())
}

/// Writes a temporary file and renames it, so that a crash leaves no half token.
fn write(path: &Path, token: &str) -> io::Result<()> {
    let beside = path.with_extension("token.new");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    std::fs::rename(beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_token_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let made = load_or_create(dir.path(), || "0123456789abcdef".to_owned()).unwrap();
        let again = load_or_create(dir.path(), || unreachable!("there is one")).unwrap();
        assert_eq!((made.as_str(), again.as_str()), ("0123456789abcdef", "0123456789abcdef"));
        let mode = std::fs::metadata(dir.path().join(TOKEN_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_token_that_guesses_would_find_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(TOKEN_FILE), "short\n").unwrap();
        let error = load_or_create(dir.path(), || unreachable!("there is one")).unwrap_err().to_string();
        assert!(error.contains("delete it"), "{error}");
    }
}
