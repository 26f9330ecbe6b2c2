//! A disk in memory that fails on command: it loses unsynced bytes sector by sector, tears writes, forgets
//! directory entries, fills up, and fails the n-th call. Every outcome follows from a seed.
//!
//! What a crash may do to each kind of unsynced change, worst case first where file systems differ:
//!
//! - a buffered write: any subset of its 512-byte sectors may be there, and an older of several unsynced
//!   versions of a sector is as good as the newest one;
//! - a change of length: may or may not have happened, independently of the sectors;
//! - a new, renamed or removed name: a prefix of the changes of each directory since its last `sync_dir`;
//! - a `DirectSync` write that was under way when the power went: any subset of its sectors.
//!
//! A failed `sync_data` marks the pages clean, as Linux does: they stay readable, no later sync writes
//! them, and a crash loses them.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::{DIRECT_ALIGN, File, NotOpened, OpenMode, Space, Storage};

mod inode;
mod names;
mod rng;

use inode::Inode;
use names::{Names, Node};
pub use rng::SimRng;

/// The unit that a disk writes whole, in bytes.
pub const SECTOR: usize = 512;

/// A kind of call, for [`SimStorage::fail_after`] and [`SimStorage::calls`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// `open`.
    Open,
    /// `read_at`.
    Read,
    /// `write_all_at` on a buffered file.
    Write,
    /// `write_all_at` on a `DirectSync` file.
    WriteSync,
    /// `sync_data`.
    Sync,
    /// The opening of a directory, in `sync_dir`.
    OpenDir,
    /// `sync_dir`, once the directory is open.
    SyncDir,
    /// `set_len`.
    SetLen,
    /// `reserve`.
    Reserve,
    /// `rename`.
    Rename,
    /// `remove_file` and `remove_dir_all`.
    Remove,
    /// `create_dir_all`.
    CreateDir,
    /// `list`, `exists` and the other questions.
    Ask,
}

/// A disk in memory. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimStorage {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    names: Names,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    /// Raised by every crash: handles of an earlier life answer with an error.
    life: u64,
    capacity: Option<u64>,
    /// Shared with every open handle of this life, which counts them.
    handles: Arc<()>,
    handles_max: Option<usize>,
    faults: Vec<Fault>,
    calls: BTreeMap<Call, u64>,
    sync_points: u64,
    power_cut_at: Option<u64>,
    power_is_off: bool,
    direct_io_refused: bool,
    room_max: Option<u64>,
}

struct Fault {
    call: Option<Call>,
    path_contains: String,
    countdown: u64,
    error: SimError,
}

/// The error of an injected fault.
#[derive(Clone, Copy, Debug)]
pub enum SimError {
    /// Of this kind.
    Kind(io::ErrorKind),
    /// As the system gives it, where there is no kind for it: `EMFILE` and the like.
    Os(i32),
}

impl From<io::ErrorKind> for SimError {
    fn from(kind: io::ErrorKind) -> SimError {
        SimError::Kind(kind)
    }
}

impl From<SimError> for io::Error {
    fn from(error: SimError) -> io::Error {
        match error {
            SimError::Kind(kind) => io::Error::new(kind, "injected fault"),
            SimError::Os(errno) => io::Error::from_raw_os_error(errno),
        }
    }
}

/// What [`State::enter`] found out about a call that it lets through.
#[derive(PartialEq)]
enum Entry {
    Go,
    /// The power goes during this call: leave its effect pending.
    PowerCut,
}

impl SimStorage {
    /// An empty disk without limits or faults.
    pub fn new() -> SimStorage {
        SimStorage::default()
    }

    /// Sets how many handles may be open at a time: one more is refused with `EMFILE`. Handles from before a crash do not
    /// count.
    pub fn set_handles_max(&self, handles: Option<usize>) {
        self.state.lock().handles_max = handles;
    }

    /// Limits the sum of all file lengths, in bytes, and of what is reserved beyond them. A write that does not fit writes what
    /// fits, then fails.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// Makes opening with [`OpenMode::DirectSync`] and [`File::direct`] answer `Unsupported`, as on tmpfs.
    pub fn refuse_direct_io(&self) {
        self.state.lock().direct_io_refused = true;
    }

    /// Refuses to reserve more than so many bytes at once: a log takes no room ahead then, and every append may find the disk
    /// full. That is no call for [`SimStorage::fail_after`].
    pub fn set_room_max(&self, bytes: Option<u64>) {
        self.state.lock().room_max = bytes;
    }

    /// Lets `skip` calls pass that match (`None`: any kind; paths that contain `path_contains`), and fails
    /// the next one.
    pub fn fail_after(&self, call: Option<Call>, path_contains: &str, skip: u64, error: impl Into<SimError>) {
        let (path_contains, error) = (path_contains.to_owned(), error.into());
        let fault = Fault { call, path_contains, countdown: skip, error };
        self.state.lock().faults.push(fault);
    }

    /// Forgets the faults that have not fired.
    pub fn clear_faults(&self) {
        self.state.lock().faults.clear();
    }

    /// How many calls of this kind there were.
    pub fn calls(&self, call: Call) -> u64 {
        self.state.lock().calls.get(&call).copied().unwrap_or(0)
    }

    /// Calls so far after which something is durable: `sync_data`, `sync_dir`, direct writes.
    pub fn sync_points(&self) -> u64 {
        self.state.lock().sync_points
    }

    /// Cuts the power in the middle of sync point `n` (the first is 0, counted from the beginning): that call
    /// and all later ones fail, and its effect is as uncertain as any unsynced write. Then call
    /// [`SimStorage::crash`].
    pub fn cut_power_at_sync_point(&self, n: u64) {
        self.state.lock().power_cut_at = Some(n);
    }

    /// Cuts the power now: every call fails until [`SimStorage::crash`].
    pub fn cut_power(&self) {
        self.state.lock().power_is_off = true;
    }

    /// True if the power has been cut and the machine not been restarted.
    pub fn power_is_off(&self) -> bool {
        self.state.lock().power_is_off
    }

    /// Loses what a power cut may lose, as this seed decides, and starts the machine again: open handles are
    /// dead, faults and power cuts are cleared, and what is left is durable.
    pub fn crash(&self, seed: u64) {
        self.state.lock().crash(&mut SimRng::new(seed));
    }

    /// A copy of the disk as it is now, with its pending changes and nothing shared.
    pub fn fork(&self) -> SimStorage {
        let state = self.state.lock();
        SimStorage {
            state: Arc::new(Mutex::new(State {
                names: state.names.clone(),
                inodes: state.inodes.clone(),
                next_inode: state.next_inode,
                capacity: state.capacity,
                direct_io_refused: state.direct_io_refused,
                room_max: state.room_max,
                ..State::default()
            })),
        }
    }

    /// Changes bytes of a file behind the log's back, on the medium and in the page cache: a latent disk
    /// error.
    pub fn corrupt(&self, path: &Path, position: u64, change: impl FnOnce(&mut [u8])) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.names.file(path)?;
        state.inode(id)?.corrupt(position, change);
        Ok(())
    }

    /// The content of a file as a reader sees it.
    pub fn content(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        let id = state.names.file(path)?;
        Ok(state.inode(id)?.live.clone())
    }
}

impl State {
    fn enter(&mut self, call: Call, path: &Path) -> io::Result<Entry> {
        if self.power_is_off {
            return Err(io::Error::other("the power is off"));
        }
        *self.calls.entry(call).or_default() += 1;
        if matches!(call, Call::Sync | Call::SyncDir | Call::WriteSync) {
            let point = self.sync_points;
            self.sync_points += 1;
            if self.power_cut_at == Some(point) {
                self.power_is_off = true;
                return Ok(Entry::PowerCut);
            }
        }
        let text = path.to_string_lossy();
        let matching = |f: &&mut Fault| f.call.is_none_or(|c| c == call) && text.contains(&f.path_contains);
        let mut fired = None;
        for fault in self.faults.iter_mut().filter(matching) {
            if fault.countdown == 0 && fired.is_none() {
                fired = Some(fault.error);
                // Never matches again: removed below.
                fault.countdown = u64::MAX;
            } else if fault.countdown != u64::MAX {
                fault.countdown = fault.countdown.saturating_sub(1);
            }
        }
        self.faults.retain(|f| f.countdown != u64::MAX);
        match fired {
            Some(error) => Err(error.into()),
            None => Ok(Entry::Go),
        }
    }

    fn check_handles(&self) -> io::Result<()> {
        match self.handles_max {
            Some(max) if Arc::strong_count(&self.handles) > max => {
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn inode(&mut self, id: u64) -> io::Result<&mut Inode> {
        self.inodes.get_mut(&id).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn used(&self) -> u64 {
        self.inodes.values().map(Inode::room_taken).sum()
    }

    /// How many bytes of a growth by `growth` still fit.
    fn room(&self, growth: u64) -> u64 {
        self.capacity.map_or(growth, |capacity| capacity.saturating_sub(self.used()).min(growth))
    }

    /// Forgets files that no name, no handle and no possible outcome of a crash leads to.
    fn drop_unreachable(&mut self) {
        let kept = self.names.forget_unreachable();
        self.inodes.retain(|id, inode| kept.contains(id) || inode.has_handles());
    }

    fn crash(&mut self, rng: &mut SimRng) {
        let kept = self.names.crash(|changes| rng.up_to(changes));
        self.inodes.retain(|id, _| kept.contains(id));
        for inode in self.inodes.values_mut() {
            inode.crash(rng);
        }
        self.life += 1;
        self.handles = Arc::default();
        self.faults.clear();
        self.power_cut_at = None;
        self.power_is_off = false;
    }
}

impl Storage for SimStorage {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        state.enter(Call::Open, path)?;
        state.check_handles()?;
        if mode == OpenMode::DirectSync && state.direct_io_refused {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let id = match state.names.get(path) {
            Some(Node::File(id)) => id,
            Some(Node::Dir(_)) => return Err(io::ErrorKind::IsADirectory.into()),
            None if mode == OpenMode::Create => {
                let id = state.next_inode;
                state.names.create_file(path, id)?;
                state.next_inode += 1;
                state.inodes.insert(id, Inode::default());
                id
            }
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let life = state.life;
        let alive = state.inode(id)?.handle();
        let counted = state.handles.clone();
        drop(state);
        let (storage, path) = (self.clone(), path.to_owned());
        let handle = Handle::Opened(mode);
        Ok(Arc::new(SimFile { storage, path, id, life, handle, _alive: alive, _counted: counted }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Call::CreateDir, path)?;
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        for dir in ancestors {
            match state.names.get(dir) {
                Some(Node::Dir(_)) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => state.names.create_dir(dir)?,
            }
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut state = self.state.lock();
        state.enter(Call::Ask, path)?;
        state.names.list(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let mut state = self.state.lock();
        state.enter(Call::Ask, path)?;
        Ok(state.names.get(path).is_some())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Call::Rename, from)?;
        state.names.rename(from, to)?;
        state.drop_unreachable();
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Call::Remove, path)?;
        state.names.file(path)?;
        state.names.remove(path)?;
        state.drop_unreachable();
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Call::Remove, path)?;
        if !matches!(state.names.get(path), Some(Node::Dir(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.names.remove(path)?;
        state.drop_unreachable();
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        state.enter(Call::OpenDir, path).map_err(NotOpened::wrap)?;
        if state.enter(Call::SyncDir, path)? == Entry::PowerCut {
            return Err(io::Error::other("the power went"));
        }
        if !matches!(state.names.get(path), Some(Node::Dir(_))) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.names.sync_dir(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        let mut state = self.state.lock();
        state.enter(Call::Ask, path)?;
        let total_bytes = state.capacity.unwrap_or(u64::MAX);
        let free_bytes = state.capacity.map_or(u64::MAX, |capacity| capacity.saturating_sub(state.used()));
        Ok(Space { free_bytes, total_bytes })
    }
}

struct SimFile {
    storage: SimStorage,
    path: PathBuf,
    id: u64,
    life: u64,
    handle: Handle,
    _alive: Arc<()>,
    _counted: Arc<()>,
}

/// How a handle came to be.
#[derive(Clone, Copy, PartialEq)]
enum Handle {
    Opened(OpenMode),
    /// By [`File::direct`].
    Direct,
}

impl SimFile {
    fn with<T>(&self, call: Call, act: impl FnOnce(&mut State, Entry) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.storage.state.lock();
        if state.life != self.life {
            return Err(io::Error::other("this handle is from before the crash"));
        }
        let entry = state.enter(call, &self.path)?;
        act(&mut state, entry)
    }

    fn check_writable(&self) -> io::Result<()> {
        let read_only = self.handle == Handle::Opened(OpenMode::Read);
        if read_only { Err(io::ErrorKind::PermissionDenied.into()) } else { Ok(()) }
    }
}

impl File for SimFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.with(Call::Read, |state, _| Ok(state.inode(self.id)?.read(buf, position)))
    }

    fn write_all_at(&self, buf: &[u8], position: u64) -> io::Result<()> {
        self.check_writable()?;
        let synced = self.handle == Handle::Opened(OpenMode::DirectSync);
        let direct = synced || self.handle == Handle::Direct;
        let aligned = |n: usize| n.is_multiple_of(DIRECT_ALIGN);
        if direct && !(aligned(buf.len()) && aligned(position as usize) && aligned(buf.as_ptr().addr())) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "direct write is not aligned to 4096 bytes",
            ));
        }
        let call = if synced { Call::WriteSync } else { Call::Write };
        self.with(call, |state, entry| {
            let taken = state.inode(self.id)?.room_taken();
            let growth = (position + buf.len() as u64).saturating_sub(taken);
            let missing = growth - state.room(growth);
            let fits = buf.len().saturating_sub(missing as usize);
            let inode = state.inode(self.id)?;
            inode.write(&buf[..fits], position);
            if entry == Entry::PowerCut {
                return Err(io::Error::other("the power went"));
            }
            if synced {
                inode.make_durable();
            }
            if missing > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let result = self.with(Call::Sync, |state, entry| {
            if entry == Entry::PowerCut {
                return Ok(false);
            }
            state.inode(self.id)?.make_durable();
            Ok(true)
        });
        match result {
            Ok(true) => Ok(()),
            Ok(false) => Err(io::Error::other("the power went")),
            Err(error) => {
                let mut state = self.storage.state.lock();
                if state.life == self.life && !state.power_is_off {
                    state.inode(self.id)?.forget_pending();
                }
                Err(error)
            }
        }
    }

    fn write_back(&self, _position: u64, _len: u64) -> io::Result<()> {
        self.with(Call::Ask, |_, _| Ok(()))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(Call::Ask, |state, _| Ok(state.inode(self.id)?.live.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        self.with(Call::SetLen, |state, _| {
            let old = state.inode(self.id)?.room_taken();
            let growth = len.saturating_sub(old);
            if state.room(growth) < growth {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.inode(self.id)?.set_len(len as usize);
            Ok(())
        })
    }

    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        if self.storage.state.lock().room_max.is_some_and(|max| len > max) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.with(Call::Reserve, |state, _| {
            let growth = (position + len).saturating_sub(state.inode(self.id)?.room_taken());
            if state.room(growth) < growth {
                return Err(io::ErrorKind::StorageFull.into());
            }
            state.inode(self.id)?.reserve(position + len);
            Ok(())
        })
    }

    fn direct(&self) -> io::Result<Arc<dyn File>> {
        self.check_writable()?;
        let (alive, counted) = self.with(Call::Open, |state, _| {
            state.check_handles()?;
            if state.direct_io_refused {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Ok((state.inode(self.id)?.handle(), state.handles.clone()))
        })?;
        let (storage, path) = (self.storage.clone(), self.path.clone());
        let (id, life, handle) = (self.id, self.life, Handle::Direct);
        Ok(Arc::new(SimFile { storage, path, id, life, handle, _alive: alive, _counted: counted }))
    }

    fn fd(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

#[cfg(test)]
mod tests;
