//! A disk on which calls of a kind wait while a gate is closed.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};

use pelton_commitlog::storage::{File, OpenMode, SimStorage, Space, Storage};

/// Which calls wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// Of files that have left a log; not what a new segment looks for in its place.
    Removals,
    /// The journal's groups: what makes an append durable.
    JournalWrites,
}

/// Open until it is held.
#[derive(Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    held: bool,
    waiting: usize,
}

/// Opens the gate when it goes, also when the test fails: a thread of the broker would wait for ever.
pub(crate) struct Holding(Arc<Gate>);

impl Drop for Holding {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().held = false;
        self.0.changed.notify_all();
    }
}

impl Gate {
    pub(crate) fn new() -> Arc<Gate> {
        Arc::default()
    }

    pub(crate) fn hold(self: &Arc<Gate>) -> Holding {
        self.state.lock().unwrap().held = true;
        Holding(Arc::clone(self))
    }

    pub(crate) async fn until_one_waits(self: &Arc<Gate>) {
        let gate = Arc::clone(self);
        let one_waits = move || {
            let state = gate.state.lock().unwrap();
            drop(gate.changed.wait_while(state, |state| state.waiting == 0).unwrap());
        };
        tokio::task::spawn_blocking(one_waits).await.unwrap();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |state| state.held).unwrap();
        state.waiting -= 1;
    }
}

/// The disk.
pub(crate) struct GatedDisk {
    disk: SimStorage,
    waits: Waits,
    gate: Arc<Gate>,
}

impl GatedDisk {
    pub(crate) fn new(disk: &SimStorage, waits: Waits, gate: &Arc<Gate>) -> GatedDisk {
        GatedDisk { disk: disk.clone(), waits, gate: Arc::clone(gate) }
    }
}

impl Storage for GatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, mode)?;
        if self.waits == Waits::JournalWrites && mode == OpenMode::DirectSync {
            return Ok(Arc::new(GatedFile { file, gate: Arc::clone(&self.gate) }));
        }
        Ok(file)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if self.waits == Waits::Removals && path.extension().is_some_and(|extension| extension == "deleted") {
            self.gate.pass();
        }
        self.disk.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}

struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GatedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }
    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.gate.pass();
        self.file.write_all_at(buf, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }
    fn write_back(&self, position: u64, len: u64) -> io::Result<()> {
        self.file.write_back(position, len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.fd()
    }
}
