//! What a folder holds after anything that may happen to it.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;

const SETTINGS: Settings =
    Settings { fsync: Fsync::Every(Duration::from_millis(5)), checkpoint_bytes: 1 << 20, free_bytes: 0 };

fn entry(number: u64) -> Entry {
    // Of different lengths.
    Entry::new(8, |bytes| bytes.extend(number.to_le_bytes().repeat(1 + number as usize % 3)))
}

fn append(journal: &Journal, numbers: std::ops::Range<u64>) -> u64 {
    numbers.map(|number| journal.order().expect("the disk works").append(entry(number))).last().unwrap_or(0)
}

/// Starts in a folder, with a state that says how many entries there are.
fn start(path: &Path, settings: Settings) -> Journal {
    let mut opened = open(path).expect("the folder can be opened");
    let is_new = opened.state.is_none();
    while opened.log.next_entry().expect("the log can be read").is_some() {}
    let journal = Journal::start(opened, 7, settings);
    if is_new {
        assert!(checkpoint(&journal));
    }
    journal
}

fn checkpoint(journal: &Journal) -> bool {
    journal.checkpoint(|hand_out| hand_out(b"a state".to_vec()))
}

/// What is read: how many entries the state follows from, the numbers of the entries, and the bytes that were cut.
fn read(path: &Path) -> (Option<u64>, Vec<u64>, u64) {
    let mut opened = open(path).expect("the folder can be opened");
    let mut numbers = Vec::new();
    while let Some(entry) = opened.log.next_entry().expect("the log can be read") {
        numbers.push(u64::from_le_bytes(entry[..8].try_into().expect("eight bytes")));
    }
    let cut = opened.log.cut().map_or(0, |cut| cut.bytes);
    (opened.state.map(|state| state.position), numbers, cut)
}

fn only_log(path: &Path) -> PathBuf {
    let files = fs::read_dir(path).expect("it is a folder").map(|file| file.expect("it is a file").path());
    let mut logs: Vec<PathBuf> = files.filter(|file| file.extension().is_some_and(|e| e == "log")).collect();
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

#[test]
fn what_was_appended_is_read_in_order_and_a_state_takes_its_place() {
    let folder = tempfile::tempdir().expect("a folder");
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(1)), Fsync::Never] {
        let path = folder.path().join(format!("{fsync:?}"));
        let journal = start(&path, Settings { fsync, ..SETTINGS });
        append(&journal, 0..10);
        drop(journal);
        assert_eq!(read(&path), (Some(0), (0..10).collect(), 0));
        // A second process, and a third.
        let journal = start(&path, SETTINGS);
        append(&journal, 10..15);
        assert!(checkpoint(&journal));
        append(&journal, 15..17);
        drop(journal);
        assert_eq!(read(&path), (Some(15), vec![15, 16], 0));
    }
}

#[test]
fn wherever_the_last_file_ends_the_entries_before_that_are_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = start(folder.path(), SETTINGS);
    append(&journal, 0..5);
    drop(journal);
    let log = only_log(folder.path());
    let content = fs::read(&log).expect("it can be read");
    let mut last = 0;
    for length in 0..=content.len() {
        fs::write(&log, &content[..length]).expect("it can be written");
        let (state, numbers, cut) = read(folder.path());
        assert_eq!(state, Some(0));
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
        assert!(numbers.len() >= last, "more of the file has fewer entries");
        last = numbers.len();
        let is_cut = length > 0 && cut > 0;
        // What was cut off is gone for good.
        assert_eq!(read(folder.path()), (Some(0), numbers, 0), "after {length} bytes, {is_cut}");
        let rest = fs::metadata(&log).map_or(0, |file| file.len());
        assert_eq!(rest + cut, length as u64, "what is not read is counted");
    }
    assert_eq!(last, 5);
}

#[test]
fn a_flipped_bit_ends_the_log_before_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = start(folder.path(), SETTINGS);
    append(&journal, 0..5);
    drop(journal);
    let log = only_log(folder.path());
    let content = fs::read(&log).expect("it can be read");
    for place in 0..content.len() {
        let mut damaged = content.clone();
        damaged[place] ^= 0x10;
        fs::write(&log, &damaged).expect("it can be written");
        let (_, numbers, cut) = read(folder.path());
        assert!(numbers.len() < 5 && cut > 0, "at {place}: {numbers:?}");
        assert_eq!(numbers, (0..numbers.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn after_a_damaged_tail_new_entries_follow_the_last_good_one() {
    let folder = tempfile::tempdir().expect("a folder");
    append(&start(folder.path(), SETTINGS), 0..5);
    let log = only_log(folder.path());
    let content = fs::read(&log).expect("it can be read");
    fs::write(&log, &content[..content.len() - 1]).expect("it can be written");
    append(&start(folder.path(), SETTINGS), 100..102);
    assert_eq!(read(folder.path()), (Some(0), vec![0, 1, 2, 3, 100, 101], 0));
}

#[test]
fn a_state_that_is_not_whole_is_none_and_is_put_aside() {
    let folder = tempfile::tempdir().expect("a folder");
    append(&start(folder.path(), SETTINGS), 0..5);
    let state = folder.path().join("0000000000000000.state");
    let content = fs::read(&state).expect("it can be read");
    fs::write(&state, &content[..content.len() - 1]).expect("it can be written");
    let opened = open(folder.path()).expect("the folder can be opened");
    assert!(opened.state.is_none());
    assert!(opened.damaged.is_some_and(|aside| aside.join("0000000000000000.log").exists()));
}

#[test]
fn a_folder_is_of_one_process_and_none_of_an_older_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = start(folder.path(), SETTINGS);
    assert!(matches!(open(folder.path()), Err(OpenError::Locked { .. })));
    drop(journal);
    let state = folder.path().join("0000000000000000.state");
    let mut content = fs::read(&state).expect("it can be read");
    content[8] = 2;
    let checksum = crc32fast::hash(&content[..28]).to_le_bytes();
    content[28..32].copy_from_slice(&checksum);
    fs::write(&state, &content).expect("it can be written");
    assert!(matches!(open(folder.path()), Err(OpenError::Newer { found: 2, .. })));
    assert!(state.exists(), "it is left alone");
}

#[tokio::test]
async fn while_the_disk_fails_nothing_is_taken_in_and_a_new_state_ends_that() {
    let folder = tempfile::tempdir().expect("a folder");
    for fsync in [Fsync::Always, Fsync::Every(Duration::from_millis(1)), Fsync::Never] {
        let path = folder.path().join(format!("{fsync:?}"));
        let journal = start(&path, Settings { fsync, ..SETTINGS });
        let before = append(&journal, 0..3);
        assert_eq!(journal.stored(before).await, Ok(()));
        assert_eq!(journal.settled(before).await, Ok(()));
        journal.break_disk(true);
        let unwritten = append(&journal, 3..4);
        // With `never` it is met when something is written.
        assert_eq!(journal.stored(unwritten).await, Err(NotStored), "{fsync:?}");
        assert_eq!(journal.settled(unwritten).await, Err(NotStored));
        assert!(journal.order().is_err() && !journal.has_room());
        assert!(!checkpoint(&journal));
        assert!(journal.condition().errors > 0);
        journal.break_disk(false);
        assert!(checkpoint(&journal), "the state knows of the one that was not written");
        assert_eq!(journal.stored(unwritten).await, Ok(()));
        let after = append(&journal, 4..6);
        assert_eq!(journal.settled(after).await, Ok(()));
        drop(journal);
        assert_eq!(read(&path), (Some(4), vec![4, 5], 0), "{fsync:?}");
    }
}

#[test]
fn with_too_little_room_requests_are_refused_and_the_rest_is_still_logged() {
    let folder = tempfile::tempdir().expect("a folder");
    let journal = start(folder.path(), Settings { free_bytes: u64::MAX, ..SETTINGS });
    journal.look(|_| {});
    assert!(!journal.has_room());
    append(&journal, 0..1);
    drop(journal);
    assert_eq!(read(folder.path()).1, [0]);
}
