use super::*;
use crate::storage::read_exact_at;

fn disk_with(path: &str) -> (SimStorage, Arc<dyn File>) {
    let disk = SimStorage::new();
    let path = Path::new(path);
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    let file = disk.open(path, OpenMode::Create).unwrap();
    for dir in path.ancestors().skip(1) {
        disk.sync_dir(dir).unwrap();
    }
    (disk, file)
}

fn outcomes(prepare: impl Fn() -> SimStorage, path: &str) -> std::collections::BTreeSet<Option<Vec<u8>>> {
    (0..200)
        .map(|seed| {
            let disk = prepare();
            disk.crash(seed);
            disk.content(Path::new(path)).ok()
        })
        .collect()
}

#[test]
fn synced_bytes_and_names_survive_every_crash() {
    let prepare = || {
        let (disk, file) = disk_with("/d/f");
        file.write_all_at(b"kept", 0).unwrap();
        file.sync_data().unwrap();
        disk
    };
    assert_eq!(outcomes(prepare, "/d/f"), [Some(b"kept".to_vec())].into());
}

#[test]
fn unsynced_sectors_are_lost_in_any_combination() {
    let prepare = || {
        let (disk, file) = disk_with("/d/f");
        file.write_all_at(&[0; SECTOR * 3], 0).unwrap();
        file.sync_data().unwrap();
        file.write_all_at(&[1; SECTOR * 3], 0).unwrap();
        disk
    };
    let seen = outcomes(prepare, "/d/f");
    let shapes: std::collections::BTreeSet<Vec<u8>> =
        seen.iter().map(|c| c.as_ref().unwrap().chunks(SECTOR).map(|s| s[0]).collect()).collect();
    assert_eq!(shapes.len(), 8, "{shapes:?}");
    assert!(seen.iter().all(|c| c.as_ref().unwrap().chunks(SECTOR).all(|s| s.iter().all(|b| *b == s[0]))));
}

#[test]
fn an_unsynced_length_is_independent_of_its_bytes() {
    let prepare = || {
        let (disk, file) = disk_with("/d/f");
        file.write_all_at(&[1; SECTOR], 0).unwrap();
        disk
    };
    let expect = [vec![], vec![0; SECTOR], vec![1; SECTOR]].map(Some);
    assert_eq!(outcomes(prepare, "/d/f"), expect.into());
}

#[test]
fn an_unsynced_cut_may_or_may_not_have_happened() {
    let prepare = || {
        let (disk, file) = disk_with("/d/f");
        file.write_all_at(b"abcdef", 0).unwrap();
        file.sync_data().unwrap();
        file.set_len(2).unwrap();
        disk
    };
    let seen = outcomes(prepare, "/d/f");
    assert!(seen.contains(&Some(b"ab".to_vec())));
    assert!(seen.contains(&Some(b"abcdef".to_vec())));
}

#[test]
fn unsynced_names_are_lost_latest_first() {
    let prepare = || {
        let (disk, _) = disk_with("/d/f");
        disk.open(Path::new("/d/g"), OpenMode::Create).unwrap();
        disk.rename(Path::new("/d/g"), Path::new("/d/h")).unwrap();
        disk.remove_file(Path::new("/d/f")).unwrap();
        disk
    };
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..100 {
        let disk = prepare();
        disk.crash(seed);
        let names: Vec<String> =
            disk.list(Path::new("/d")).unwrap().iter().map(|p| p.display().to_string()).collect();
        seen.insert(names.join(" "));
    }
    assert_eq!(seen, ["/d/f", "/d/f /d/g", "/d/f /d/h", "/d/h"].map(str::to_owned).into());
}

#[test]
fn a_file_in_a_lost_directory_is_lost() {
    let disk = SimStorage::new();
    disk.create_dir_all(Path::new("/a/b")).unwrap();
    let file = disk.open(Path::new("/a/b/f"), OpenMode::Create).unwrap();
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("/a/b")).unwrap();
    let lost = (0..50).filter(|seed| {
        let disk = disk.fork();
        disk.crash(*seed);
        disk.content(Path::new("/a/b/f")).is_err()
    });
    assert!(lost.count() > 0);
}

#[test]
fn direct_writes_are_durable_on_return_and_torn_when_the_power_goes() {
    #[repr(align(4096))]
    struct Page([u8; DIRECT_ALIGN]);
    let page = Box::new(Page([1; DIRECT_ALIGN]));
    let (disk, file) = disk_with("/d/j");
    file.write_all_at(&[0; DIRECT_ALIGN * 2], 0).unwrap();
    file.sync_data().unwrap();
    let direct = disk.open(Path::new("/d/j"), OpenMode::DirectSync).unwrap();
    assert_eq!(direct.write_all_at(&page.0[..100], 0).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    direct.write_all_at(&page.0, 0).unwrap();
    disk.cut_power_at_sync_point(disk.sync_points());
    direct.write_all_at(&page.0, DIRECT_ALIGN as u64).unwrap_err();
    assert!(disk.power_is_off());
    assert!(disk.list(Path::new("/d")).is_err());
    let mut torn = 0;
    for seed in 0..50 {
        let disk = disk.fork();
        disk.crash(seed);
        let content = disk.content(Path::new("/d/j")).unwrap();
        assert_eq!(content[..DIRECT_ALIGN], [1; DIRECT_ALIGN]);
        let ones = content[DIRECT_ALIGN..].iter().filter(|b| **b == 1).count();
        torn += usize::from(ones != 0 && ones != DIRECT_ALIGN);
    }
    assert!(torn > 10, "{torn} of 50 torn");
}

#[test]
fn a_failed_sync_marks_the_pages_clean() {
    let (disk, file) = disk_with("/d/f");
    file.write_all_at(b"gone", 0).unwrap();
    disk.fail_after(Some(Call::Sync), "/d/f", 0, io::ErrorKind::Other);
    file.sync_data().unwrap_err();
    file.sync_data().unwrap();
    let mut buf = [0; 4];
    read_exact_at(&*file, &mut buf, 0).unwrap();
    assert_eq!(&buf, b"gone");
    disk.crash(1);
    assert_eq!(disk.content(Path::new("/d/f")).unwrap(), b"");
}

#[test]
fn a_full_disk_takes_a_prefix() {
    let (disk, file) = disk_with("/d/f");
    disk.set_capacity(Some(6));
    file.write_all_at(b"abcd", 0).unwrap();
    assert_eq!(disk.space(Path::new("/d")).unwrap().free_bytes, 2);
    assert_eq!(file.write_all_at(b"efgh", 4).unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.content(Path::new("/d/f")).unwrap(), b"abcdef");
    file.set_len(4).unwrap();
    file.write_all_at(b"xy", 4).unwrap();
}

#[test]
fn the_nth_call_fails_once() {
    let (disk, file) = disk_with("/d/f");
    disk.fail_after(Some(Call::Write), "f", 2, io::ErrorKind::Other);
    let results: Vec<bool> = (0..5).map(|i| file.write_all_at(b"x", i).is_ok()).collect();
    assert_eq!(results, [true, true, false, true, true]);
    assert_eq!(disk.calls(Call::Write), 5);
}

#[test]
fn handles_die_with_the_machine() {
    let (disk, file) = disk_with("/d/f");
    disk.crash(0);
    assert!(file.read_at(&mut [0], 0).is_err());
    assert!(disk.open(Path::new("/d/f"), OpenMode::Read).is_ok());
}
