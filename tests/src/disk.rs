//! An ext4 file system in a file, whose power can be cut.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

/// The ioctl that stops an ext4 file system at once: `_IOR('X', 125, __u32)`.
const EXT4_IOC_SHUTDOWN: u32 = 0x8004_587d;
/// Nothing is written any more, the file system's own log included: what is not on the device is gone.
const NO_LOG_FLUSH: u32 = 2;
/// Longest wait for the dead file system to be let go by its last user.
const UNMOUNT_LIMIT: Duration = Duration::from_secs(20);

/// A mounted file system; it is unmounted and deleted when dropped.
pub struct Disk {
    image: PathBuf,
    /// Where it is mounted.
    pub mount: PathBuf,
    keep: bool,
}

/// Why power cuts cannot be tried here, if they cannot.
pub fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root, to mount a file system".to_owned());
    }
    if !Path::new("/dev/loop-control").exists() {
        return Some("needs loop devices (/dev/loop-control is missing)".to_owned());
    }
    let has = |tool: &str| Command::new(tool).arg("-V").output().is_ok();
    ["mkfs.ext4", "mount", "umount"].iter().find(|t| !has(t)).map(|t| format!("needs {t}"))
}

impl Disk {
    /// Makes a file system of so many bytes (the image is sparse) and mounts it.
    ///
    /// # Errors
    /// A step failed; its output is in the error.
    pub fn create(dir: &Path, bytes: u64) -> Result<Disk> {
        let disk = Disk { image: dir.join("disk.img"), mount: dir.join("mount"), keep: false };
        File::create(&disk.image)?.set_len(bytes)?;
        std::fs::create_dir_all(&disk.mount)?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0"]).arg(&disk.image))?;
        disk.mount()?;
        Ok(disk)
    }

    fn mount(&self) -> Result<()> {
        run(Command::new("mount").args(["-t", "ext4", "-o", "loop"]).arg(&self.image).arg(&self.mount))
    }

    /// Cuts the power: from here on every write fails, and nothing that was not durable will be found.
    ///
    /// # Errors
    /// The file system has no such ioctl.
    #[expect(unsafe_code, reason = "the ioctl has no safe wrapper")]
    pub fn cut(&self) -> Result<()> {
        let root = File::open(&self.mount)?;
        // SAFETY: the opcode is ext4's, and its argument is a pointer to a u32 that the kernel only reads.
        unsafe {
            let shutdown = rustix::ioctl::Setter::<{ EXT4_IOC_SHUTDOWN as rustix::ioctl::Opcode }, u32>::new(
                NO_LOG_FLUSH,
            );
            rustix::ioctl::ioctl(&root, shutdown)
        }
        .context("EXT4_IOC_SHUTDOWN")
    }

    /// Power is back: the file system is mounted again, which replays its journal.
    ///
    /// # Errors
    /// Somebody still uses it, or it does not mount.
    pub fn restore(&self) -> Result<()> {
        let end = Instant::now() + UNMOUNT_LIMIT;
        while let Err(error) = run(Command::new("umount").arg(&self.mount)) {
            if Instant::now() > end {
                return Err(error);
            }
            std::thread::sleep(Duration::from_millis(5)); // the kernel lets go of a killed process's files a little later
        }
        self.mount()
    }
}

impl Disk {
    /// Unmounts it and leaves the image where it is, for somebody to look at.
    pub fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run(Command::new("umount").arg("-l").arg(&self.mount));
        if !self.keep {
            let _ = std::fs::remove_file(&self.image);
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
