//! The names of the simulated disk: directories by number, so that one that is removed and made again is
//! another one, and the changes made to each since its last sync.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

/// What a name stands for, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir(u64),
    File(u64),
}

/// One change of the entries of a directory.
#[derive(Clone, Debug)]
enum Change {
    Add {
        name: OsString,
        node: Node,
    },
    /// A file, or a directory with all below it.
    Remove {
        name: OsString,
    },
    Move {
        from_dir: u64,
        from: OsString,
        name: OsString,
    },
}

type Entries = BTreeMap<OsString, Node>;

/// Directories and their entries. One that no name leads to may be there.
#[derive(Clone, Default)]
struct Tree {
    dirs: BTreeMap<u64, Entries>,
}

/// The root directory, which is always there.
const ROOT: u64 = 0;

/// All names: as programs see them, and as a crash would leave them at least.
#[derive(Clone, Default)]
pub(super) struct Names {
    live: Tree,
    durable: Tree,
    /// Changes of each directory since its last sync.
    pending: BTreeMap<u64, Vec<Change>>,
    last_dir: u64,
}

impl Names {
    pub(super) fn get(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Dir(ROOT);
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let Node::Dir(dir) = node else { return None };
            node = *self.live.dirs.get(&dir)?.get(name)?;
        }
        Some(node)
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.get(path) {
            Some(Node::File(id)) => Ok(id),
            Some(Node::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir(&self, path: &Path) -> io::Result<u64> {
        match self.get(path) {
            Some(Node::Dir(id)) => Ok(id),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory that holds the last name of a path, and that name.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(u64, &'a OsStr)> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok((self.dir(parent)?, name))
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let entries = self.live.dirs.get(&self.dir(path)?);
        Ok(entries.into_iter().flat_map(|entries| entries.keys().map(|name| path.join(name))).collect())
    }

    pub(super) fn create_file(&mut self, path: &Path, id: u64) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        self.change(dir, Change::Add { name: name.to_owned(), node: Node::File(id) })
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        self.last_dir += 1;
        self.change(dir, Change::Add { name: name.to_owned(), node: Node::Dir(self.last_dir) })
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        if let Some(Node::Dir(dir)) = self.get(to)
            && self.live.dirs.get(&dir).is_some_and(|entries| !entries.is_empty())
        {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        let ((from_dir, from), (dir, name)) = (self.place(from)?, self.place(to)?);
        self.change(dir, Change::Move { from_dir, from: from.to_owned(), name: name.to_owned() })
    }

    pub(super) fn remove(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name) = self.place(path)?;
        self.change(dir, Change::Remove { name: name.to_owned() })
    }

    fn change(&mut self, dir: u64, change: Change) -> io::Result<()> {
        self.live.apply(dir, &change)?;
        self.pending.entry(dir).or_default().push(change);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.dir(path)?;
        for change in self.pending.remove(&dir).unwrap_or_default() {
            self.durable.apply_quietly(dir, &change);
        }
        Ok(())
    }

    /// Keeps of the changes of each directory as many as `keep` says, and makes what is left durable. Answers
    /// the files that are left.
    pub(super) fn crash(&mut self, mut keep: impl FnMut(usize) -> usize) -> BTreeSet<u64> {
        for (dir, changes) in std::mem::take(&mut self.pending) {
            for change in &changes[..keep(changes.len())] {
                self.durable.apply_quietly(dir, change);
            }
        }
        self.live = self.durable.clone();
        self.forget_unreachable()
    }

    /// Forgets directories that no name and no possible outcome of a crash leads to; answers the files that
    /// are left.
    pub(super) fn forget_unreachable(&mut self) -> BTreeSet<u64> {
        let (mut dirs, mut files) = (BTreeSet::from([ROOT]), BTreeSet::new());
        let mut queue = vec![ROOT];
        while let Some(dir) = queue.pop() {
            let entries = [&self.live, &self.durable].into_iter().filter_map(|tree| tree.dirs.get(&dir));
            let added = self.pending.get(&dir).into_iter().flatten().filter_map(Change::added);
            for node in entries.flat_map(BTreeMap::values).copied().chain(added) {
                match node {
                    Node::File(id) => drop(files.insert(id)),
                    Node::Dir(id) if dirs.insert(id) => queue.push(id),
                    Node::Dir(_) => {}
                }
            }
        }
        for tree in [&mut self.live, &mut self.durable] {
            tree.dirs.retain(|id, _| dirs.contains(id));
        }
        self.pending.retain(|id, _| dirs.contains(id));
        files
    }
}

impl Change {
    fn added(&self) -> Option<Node> {
        match self {
            Change::Add { node, .. } => Some(*node),
            Change::Remove { .. } | Change::Move { .. } => None,
        }
    }
}

impl Tree {
    fn apply(&mut self, dir: u64, change: &Change) -> io::Result<()> {
        match change {
            Change::Add { name, node } => {
                if let Node::Dir(id) = node {
                    self.dirs.entry(*id).or_default();
                }
                self.dirs.entry(dir).or_default().insert(name.clone(), *node);
            }
            Change::Remove { name } => {
                self.take(dir, name)?;
            }
            Change::Move { from_dir, from, name } => {
                let node = self.take(*from_dir, from)?;
                self.dirs.entry(dir).or_default().insert(name.clone(), node);
            }
        }
        Ok(())
    }

    fn take(&mut self, dir: u64, name: &OsStr) -> io::Result<Node> {
        let node = self.dirs.get_mut(&dir).and_then(|entries| entries.remove(name));
        node.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Applies a change to the durable tree. What it builds on may have been lost (a rename of a lost file):
    /// then it is lost too, which is what a disk does.
    fn apply_quietly(&mut self, dir: u64, change: &Change) {
        drop(self.apply(dir, change));
    }
}
