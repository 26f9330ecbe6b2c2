//! How much memory this process may use: what the machine has, or less if a control group of the process says so.
//!
//! A limit may be set on the process's own group or on any group above it, in version 2 or 1 of the interface, and a container
//! sees its group under a path of its own. Written by hand: `sysinfo` reads fixed paths, and `procfs` refuses all of
//! `mountinfo` for one line that it cannot read.

use std::path::{Path, PathBuf};

/// Taken when the system does not say, in bytes.
const UNKNOWN: u64 = 1024 * 1024 * 1024;

/// Memory of the machine or of the control groups around the process, whichever is least, in bytes.
pub(crate) fn available() -> u64 {
    let read =
        |path: &Path| std::fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    within(&read)
}

fn within(read: &dyn Fn(&Path) -> Option<String>) -> u64 {
    let machine = read(Path::new("/proc/meminfo")).as_deref().and_then(total_of_meminfo);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let limits = mounts.lines().filter_map(Mount::parse).filter_map(|mount| mount.limit(&groups, read));
    machine.into_iter().chain(limits).min().unwrap_or(UNKNOWN)
}

fn total_of_meminfo(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Version {
    /// Files of a group with a number that memory must stay below. Above `memory.high` the kernel stalls the process.
    fn files(self) -> &'static [&'static str] {
        match self {
            Version::One => &["memory.limit_in_bytes"],
            Version::Two => &["memory.max", "memory.high"],
        }
    }

    /// The group of the process, from `/proc/self/cgroup`: `hierarchy:controllers:path`.
    fn group(self, groups: &str) -> Option<&str> {
        groups.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (hierarchy, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let ours = match self {
                Version::One => controllers.split(',').any(|controller| controller == "memory"),
                Version::Two => hierarchy == "0" && controllers.is_empty(),
            };
            ours.then_some(path)
        })
    }
}

/// A place where groups that bound memory can be seen.
struct Mount {
    version: Version,
    /// The group that is shown there.
    root: PathBuf,
    place: PathBuf,
}

impl Mount {
    /// A line of `/proc/self/mountinfo`: `id parent device root place options [tag..] - type source options`.
    fn parse(line: &str) -> Option<Mount> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, place) = (unescape(mount.next()?), unescape(mount.next()?));
        let mut system = system.split(' ');
        let version = match (system.next()?, system.nth(1)?) {
            ("cgroup2", _) => Version::Two,
            ("cgroup", options) if options.split(',').any(|option| option == "memory") => Version::One,
            _ => return None,
        };
        Some(Mount { version, root, place })
    }

    /// The least that the process's group and those above it, as far as they can be seen, may use.
    fn limit(&self, groups: &str, read: &dyn Fn(&Path) -> Option<String>) -> Option<u64> {
        let group = Path::new(self.version.group(groups)?);
        // A group outside of what is shown here goes by `..`; its own numbers are out of reach then.
        let below = group.strip_prefix(&self.root).unwrap_or(Path::new(""));
        let outside = below.components().any(|part| part == std::path::Component::ParentDir);
        let below = if outside { Path::new("") } else { below };
        let all = below.ancestors().map(|group| self.place.join(group));
        let files = all.flat_map(|group| self.version.files().iter().map(move |file| group.join(file)));
        // `max` stands for no limit.
        files.filter_map(|file| read(&file)?.trim().parse::<u64>().ok()).min()
    }
}

/// Spaces and the like are written as three octal digits.
fn unescape(text: &str) -> PathBuf {
    let mut plain = text.to_owned();
    for (escaped, c) in [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")] {
        plain = plain.replace(escaped, c);
    }
    PathBuf::from(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;
    const V2: &str = "25 20 0:22 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";

    fn check(cgroup: &str, mounts: &[&str], files: &[(&str, &str)], expect: u64) {
        let mounts = mounts.join("\n");
        let read = |path: &Path| match path.to_str()? {
            "/proc/meminfo" => Some("MemTotal:       8388608 kB\nMemFree: 1 kB\n".to_owned()),
            "/proc/self/cgroup" => Some(cgroup.to_owned()),
            "/proc/self/mountinfo" => Some(mounts.clone()),
            other => files.iter().find(|(path, _)| *path == other).map(|(_, text)| (*text).to_owned()),
        };
        assert_eq!(within(&read), expect, "{cgroup} {mounts} {files:?}");
    }

    #[test]
    fn a_unit_of_systemd_and_every_slice_above_it() {
        let group = "0::/system.slice/pelton.service\n";
        let own = "/sys/fs/cgroup/system.slice/pelton.service/memory.max";
        let slice = "/sys/fs/cgroup/system.slice/memory.max";
        check(group, &[V2], &[], 8 * GIB);
        check(group, &[V2], &[(own, "1073741824\n")], GIB);
        check(group, &[V2], &[(own, "max\n"), (slice, "2147483648\n")], 2 * GIB);
        check(group, &[V2], &[(own, "17179869184\n"), (slice, "max\n")], 8 * GIB);
        let high = "/sys/fs/cgroup/system.slice/pelton.service/memory.high";
        check(group, &[V2], &[(own, "2147483648\n"), (high, "1073741824\n")], GIB);
    }

    #[test]
    fn a_container_sees_its_group_as_the_root() {
        check("0::/\n", &[V2], &[("/sys/fs/cgroup/memory.max", "536870912\n")], GIB / 2);
        // With the host's groups in sight and its own mounted.
        let mount = "25 20 0:22 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup ro";
        check("0::/docker/abc\n", &[mount], &[("/sys/fs/cgroup/memory.max", "536870912")], GIB / 2);
        let nested = [("/sys/fs/cgroup/inner/memory.max", "max"), ("/sys/fs/cgroup/memory.max", "536870912")];
        check("0::/docker/abc/inner\n", &[mount], &nested, GIB / 2);
        // Moved out of its namespace: what is mounted is all that can be asked.
        check("0::/../other\n", &[V2], &[("/sys/fs/cgroup/memory.max", "536870912")], GIB / 2);
    }

    #[test]
    fn version_1_and_both_together() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        let cpu = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu";
        let memory = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";
        let group = "4:memory:/jobs/one\n1:cpu:/\n0::/\n";
        let file = "/sys/fs/cgroup/memory/jobs/one/memory.limit_in_bytes";
        check(group, &[unified, cpu, memory], &[(file, "1073741824\n")], GIB);
        check(group, &[unified, cpu, memory], &[(file, "9223372036854771712\n")], 8 * GIB);
        let above = "/sys/fs/cgroup/memory/jobs/memory.limit_in_bytes";
        check(group, &[memory], &[(file, "2147483648"), (above, "1073741824")], GIB);
    }

    #[test]
    fn lines_that_cannot_be_read_hide_no_others() {
        let spaced = "25 20 0:22 / /my\\040groups rw - cgroup2 cgroup2 rw";
        let file = [("/my groups/a/memory.max", "1073741824")];
        check("x\n0::/a\n", &["", "nonsense", "1 2 3 - ", spaced], &file, GIB);
        check("", &[spaced], &file, 8 * GIB);
    }

    /// This process is in some group, and the machine has some memory.
    #[test]
    fn something_is_available_here() {
        assert!(available() > 0);
        assert_eq!(within(&|_| None), UNKNOWN);
    }
}
