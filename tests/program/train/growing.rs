//! Logs on disks that are full for a while, and in folders that vanish.

use std::os::unix::fs::symlink;

use tempfile::TempDir;
use vqdiffusion::train::engine::growing::GrowingFile;

#[test]
fn what_finds_no_room_is_written_later() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("log");
    symlink("/dev/full", &path).expect("a link");
    let mut file = GrowingFile::new(path.clone());
    file.append(b"one\n");
    file.append(b"two\n");
    std::fs::remove_file(&path).expect("a link");
    std::fs::write(&path, "zero\n").expect("a file");
    file.append(b"three\n");
    let text = std::fs::read_to_string(&path).expect("a file");
    assert_eq!(text, "zero\none\ntwo\nthree\n");
}

#[test]
fn a_removed_folder_is_made_again() {
    let folder = TempDir::new().expect("a temporary folder");
    let path = folder.path().join("run/log");
    let mut file = GrowingFile::new(path.clone());
    file.append(b"one\n");
    std::fs::remove_dir_all(folder.path().join("run")).expect("a folder");
    file.append(b"two\n");
    assert_eq!(std::fs::read_to_string(&path).expect("a file"), "two\n");
    // Nothing is made before there is something to write.
    let other = folder.path().join("other");
    GrowingFile::new(other.clone()).finish();
    assert!(!other.exists());
}
