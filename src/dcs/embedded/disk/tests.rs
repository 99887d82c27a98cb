//! Directories and files in every state they may be found in.

use std::sync::Arc;

use super::super::open;
use super::*;

fn change(revision: i64, key: &str, value: &str) -> Changes {
    let kv = PbKeyValue {
        key: key.into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        value: value.into(),
        lease: 5,
    };
    Changes { revision, keys: vec![(key.into(), Some(Arc::new(kv)))], leases: vec![(5, Some(60))] }
}

/// A closed store with a few keys.
fn sample(dir: &Path) {
    let (disk, _) = Disk::open(dir).unwrap();
    for revision in 2..40 {
        disk.commit(&change(revision, &format!("key{revision}"), &"value ".repeat(50))).unwrap();
    }
}

#[test]
fn what_was_committed_is_there_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("made/on/demand");
    let (disk, first) = Disk::open(&dir).unwrap();
    assert_eq!((first.revision, first.identity.term), (1, 1));
    disk.commit(&change(2, "a", "1")).unwrap();
    disk.commit(&change(3, "b", "2")).unwrap();
    let gone = Changes { revision: 4, keys: vec![(b"a".to_vec(), None)], leases: vec![(6, Some(9)), (7, None)] };
    disk.commit(&gone).unwrap();
    drop(disk);

    let (_disk, contents) = Disk::open(&dir).unwrap();
    assert_eq!(contents.revision, 4);
    assert_eq!(contents.identity, Identity { term: 2, ..first.identity });
    assert_eq!(contents.keys, [change(3, "b", "2").keys[0].1.as_deref().unwrap().clone()]);
    assert_eq!(contents.leases, [(5, 60), (6, 9)]);
}

#[test]
fn a_directory_has_one_holder() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _) = Disk::open(dir.path()).unwrap();
    let error = Disk::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains(&dir.path().display().to_string()), "{error}");
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(disk);
    Disk::open(dir.path()).unwrap();
}

#[test]
fn somebody_elses_directory_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("member")).unwrap();
    let error = Disk::open(dir.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Foreign { entry, .. } if entry == "member"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was put into it");
}

#[test]
fn a_path_that_is_a_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "x").unwrap();
    let error = Disk::open(&path).unwrap_err();
    assert!(matches!(&error, StoreError::Io { path: named, .. } if *named == path), "{error}");
}

#[test]
fn what_an_interrupted_first_start_left_is_swept_away() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(LOCK), "").unwrap();
    fs::write(dir.path().join(NEW_FILE), "half a store").unwrap();
    Disk::open(dir.path()).unwrap();
    assert!(!dir.path().join(NEW_FILE).exists());
}

#[tokio::test]
async fn damage_is_reported_or_harmless_but_never_believed() {
    let home = tempfile::tempdir().unwrap();
    let sound = home.path().join("sound");
    sample(&sound);
    let bytes = fs::read(file_in(&sound)).unwrap();
    let mut expected = read(&Database::open(file_in(&sound)).unwrap()).unwrap();
    expected.identity.term += 1;

    let mut damaged = vec![Vec::new(), b"hello".to_vec(), bytes[..bytes.len() / 2].to_vec(), vec![0; bytes.len()]];
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    damaged.extend((0..150).map(|i| {
        let mut copy = bytes.clone();
        // The head byte by byte, then leaps over the rest.
        let at = if i < 50 { i * 7 } else { 350 + (used - 350) * (i - 50) / 100 };
        copy[at] ^= 0x41;
        copy
    }));
    let mut reported = 0;
    for (number, copy) in damaged.into_iter().enumerate() {
        let dir = home.path().join(number.to_string());
        fs::create_dir(&dir).unwrap();
        fs::write(file_in(&dir), copy).unwrap();
        match open(&dir).await {
            Ok((disk, state)) => {
                drop((disk, state));
                let contents = read(&Database::open(file_in(&dir)).unwrap()).unwrap();
                assert_eq!(contents, expected, "damage {number}");
            }
            Err(StoreError::Damaged { path, .. }) => {
                assert_eq!(path, file_in(&dir));
                reported += 1;
            }
            Err(other) => panic!("damage {number}: {other}"),
        }
        fs::remove_dir_all(&dir).unwrap();
    }
    assert!(reported >= 4, "{reported}");
}

#[tokio::test]
async fn another_format_is_refused_by_number() {
    let dir = tempfile::tempdir().unwrap();
    sample(dir.path());
    let database = Database::open(file_in(dir.path())).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(NUMBERS).unwrap().insert("format", 9).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open(dir.path()).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("format 9"), "{cause}");
}
