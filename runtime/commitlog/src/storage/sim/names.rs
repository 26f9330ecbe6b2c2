//! The names of the simulated disk: a tree of directories and the changes made to it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// One change of names. It belongs to one directory, and becomes durable with it.
#[derive(Clone, Debug)]
pub(super) enum NameOp {
    Create {
        path: PathBuf,
        node: Node,
    },
    Rename {
        from: PathBuf,
        to: PathBuf,
    },
    /// A file, or a directory with all below it.
    Remove {
        path: PathBuf,
    },
}

impl NameOp {
    /// The directory whose sync makes this durable.
    pub(super) fn directory(&self) -> PathBuf {
        let path = match self {
            NameOp::Create { path, .. } | NameOp::Remove { path } => path,
            NameOp::Rename { to, .. } => to,
        };
        path.parent().unwrap_or(path).to_owned()
    }

    pub(super) fn created_file(&self) -> Option<u64> {
        match self {
            NameOp::Create { node: Node::File(id), .. } => Some(*id),
            _ => None,
        }
    }
}

#[derive(Clone, Default)]
pub(super) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    pub(super) fn get(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.nodes.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = u64> + '_ {
        self.nodes.values().filter_map(|node| match node {
            Node::File(id) => Some(*id),
            Node::Dir => None,
        })
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        match self.nodes.get(path) {
            Some(Node::Dir) => Ok(self.below(path).filter(|p| p.parent() == Some(path)).cloned().collect()),
            Some(Node::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn below<'a>(&'a self, path: &'a Path) -> impl Iterator<Item = &'a PathBuf> + 'a {
        self.nodes.keys().filter(move |p| p.starts_with(path) && *p != path)
    }

    /// True if a name can be made here.
    pub(super) fn has_parent_of(&self, path: &Path) -> bool {
        path.parent().is_none_or(|parent| self.nodes.get(parent) == Some(&Node::Dir))
    }

    pub(super) fn apply(&mut self, op: &NameOp) -> io::Result<()> {
        match op {
            NameOp::Create { path, node } => {
                self.nodes.insert(path.clone(), node.clone());
            }
            NameOp::Rename { from, to } => {
                let Some(node) = self.nodes.remove(from) else { return Err(io::ErrorKind::NotFound.into()) };
                let moved: Vec<PathBuf> = self.below(from).cloned().collect();
                for old in moved {
                    let (Some(node), Ok(rest)) = (self.nodes.remove(&old), old.strip_prefix(from)) else {
                        continue;
                    };
                    self.nodes.insert(to.join(rest), node);
                }
                self.nodes.insert(to.clone(), node);
            }
            NameOp::Remove { path } => {
                if self.nodes.remove(path).is_none() {
                    return Err(io::ErrorKind::NotFound.into());
                }
                let gone: Vec<PathBuf> = self.below(path).cloned().collect();
                for path in gone {
                    self.nodes.remove(&path);
                }
            }
        }
        Ok(())
    }

    /// Applies an operation to the durable tree. What it builds on may have been lost (a rename of a lost file):
    /// then it is lost too, which is what a disk does.
    pub(super) fn apply_quietly(&mut self, op: &NameOp) {
        drop(self.apply(op));
    }

    /// Drops names whose directory has been lost.
    pub(super) fn prune(&mut self) {
        // Parents sort before their children.
        for path in self.nodes.keys().cloned().collect::<Vec<_>>() {
            if !self.has_parent_of(&path) {
                self.nodes.remove(&path);
            }
        }
    }
}
