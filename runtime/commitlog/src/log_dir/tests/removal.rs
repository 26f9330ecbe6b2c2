//! Directories that are being removed.

use super::*;

/// A disk that takes its time to remove directories, until it is told to go on.
struct SlowToRemove(SimStorage, Mutex<bool>, Condvar);

impl Storage for SlowToRemove {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        self.0.open(path, mode)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.0.list(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.0.exists(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.2.wait_while(&mut self.1.lock(), |go_on| !*go_on);
        self.0.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.0.sync_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.0.space(path)
    }
}

#[test]
fn a_directory_that_is_being_removed_holds_up_neither_the_journal_nor_the_watch_of_free_space() {
    let disk = SimStorage::new();
    let slow = Arc::new(SlowToRemove(disk.clone(), Mutex::new(false), Condvar::new()));
    let config = LogDirConfig { threads: Threads::Spawned, journal_max_bytes: 1 << 20, ..small() };
    let (dir, _) = LogDir::open(Path::new(ROOT), config, slow.clone()).unwrap();
    create(&dir, id("gone", 0));
    dir.flush().unwrap();
    dir.delete(id("gone", 0).topic_id, 0).unwrap();
    let before = dir.journal_stats().ring_bytes;
    let (mut log, ear) = create(&dir, id("t", 0));
    // More than the ring holds.
    for n in 0..40 {
        append(&mut log, &[b'x'; 8 << 10]).unwrap();
        ear.wait_for(n + 1);
    }
    disk.set_capacity(Some(1 << 30));
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let started = std::time::Instant::now();
        while !is_so() {
            assert!(started.elapsed() < std::time::Duration::from_secs(20), "{what}");
            std::thread::yield_now();
        }
    };
    until("the ring never grows", &|| dir.journal_stats().ring_bytes > before);
    until("the free space is never asked for", &|| dir.space().free_bytes() < 1 << 30);
    *slow.1.lock() = true;
    slow.2.notify_all();
    until("it is never removed", &|| {
        disk.list(Path::new("/data/topics")).unwrap() == [Path::new("/data/topics/t-0")]
    });
    dir.close().unwrap();
}
