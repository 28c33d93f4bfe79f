//! New files and folders, locks, links and bounded reading.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;
use vqdiffusion::files::{
    self, read, read_text, remove_folder, replace_link, sha256, sha256_of_file, FolderLock,
    NewFile, NewFolder,
};

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn folder() -> TempDir {
    TempDir::new().unwrap()
}

#[test]
fn a_file_is_there_whole_or_not_at_all() {
    let at = folder();
    let path = at.path().join("a.txt");
    fs::write(&path, "old").unwrap();
    let mut new = NewFile::beside(&path).unwrap();
    new.write_all(b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    drop(new);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    files::write(&path, "new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(at.path()), ["a.txt"]);
}

#[test]
fn the_umask_decides_who_may_read_whoever_wrote_the_file() {
    let at = folder();
    let plain = at.path().join("plain");
    fs::write(&plain, "").unwrap();
    let usual = fs::metadata(&plain).unwrap().permissions().mode();

    let new = NewFile::beside(&at.path().join("replaced")).unwrap();
    fs::remove_file(new.temporary()).unwrap();
    fs::write(new.temporary(), "by a library").unwrap();
    fs::set_permissions(new.temporary(), fs::Permissions::from_mode(0o600)).unwrap();
    new.commit().unwrap();
    let made = at.path().join("replaced");
    assert_eq!(fs::metadata(&made).unwrap().permissions().mode(), usual);
    assert_eq!(fs::read(made).unwrap(), b"by a library");
}

#[test]
fn a_file_takes_no_place_that_is_not_a_file_s() {
    let at = folder();
    fs::create_dir(at.path().join("folder")).unwrap();
    pipe(&at.path().join("pipe"));
    for (name, expected) in [
        ("folder", "is a folder, expected a file"),
        ("pipe", "is a pipe, expected a file"),
        ("missing/x", "could not be written: No such file"),
        ("..", "is a folder, expected a file"),
    ] {
        let error = NewFile::beside(&at.path().join(name)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(expected), "{text}");
        assert!(text.starts_with(&at.path().join(name).display().to_string()));
    }
    let error = NewFile::beside(Path::new("/dev/null")).unwrap_err();
    assert!(error.to_string().contains("is a device"), "{error}");
    assert_eq!(names(at.path()), ["folder", "pipe"]);
}

#[test]
fn a_folder_is_replaced_whole() {
    let at = folder();
    let path = at.path().join("made");
    for text in ["first", "second"] {
        let new = NewFolder::beside(&path).unwrap();
        fs::create_dir(new.temporary().join("inside")).unwrap();
        fs::write(new.temporary().join("inside/a"), text).unwrap();
        new.commit().unwrap();
        assert_eq!(fs::read_to_string(path.join("inside/a")).unwrap(), text);
        assert_eq!(names(at.path()), ["made"]);
    }
    remove_folder(&path).unwrap();
    remove_folder(&path).unwrap();
    assert!(names(at.path()).is_empty());
}

#[test]
fn what_killed_processes_left_is_removed_and_what_living_ones_write_is_not() {
    let at = folder();
    let left = at.path().join(".vqdiffusion-77-0");
    fs::create_dir(&left).unwrap();
    fs::write(left.join("lock"), "").unwrap();
    fs::write(left.join("half"), "ha").unwrap();
    // As an earlier version left them.
    fs::create_dir(at.path().join(".vqdiffusion-oLdOnE")).unwrap();
    fs::write(at.path().join(".vqdiffusion-fIlE"), "").unwrap();
    symlink("/etc", at.path().join(".vqdiffusion-link")).unwrap();
    // Killed between taking the old folder away and bringing the new one.
    let aside = at.path().join(".vqdiffusion-77-1");
    fs::create_dir_all(aside.join("replaced/model")).unwrap();
    fs::write(aside.join("replaced/model/weights"), "all").unwrap();
    // Of a living process: an open file description of its own is as another process.
    let alive = at.path().join(".vqdiffusion-78-0");
    fs::create_dir(&alive).unwrap();
    let lock = File::create(alive.join("lock")).unwrap();
    lock.lock().unwrap();

    files::write(&at.path().join("a"), "a").unwrap();
    assert_eq!(names(at.path()), [".vqdiffusion-78-0", "a", "model"]);
    assert_eq!(fs::read(at.path().join("model/weights")).unwrap(), b"all");
    drop(lock);
    files::remove_left_over(at.path());
    assert_eq!(names(at.path()), ["a", "model"]);
}

#[test]
fn one_process_at_a_time_writes_in_a_locked_folder() {
    let at = folder();
    let run = at.path().join("new/run");
    let lock = FolderLock::take(&run).unwrap();
    let error = FolderLock::take(&run).unwrap_err();
    assert_eq!(error.source.kind(), ErrorKind::ResourceBusy);
    let text = error.to_string();
    let process = format!("process {} on ", std::process::id());
    assert!(
        text.contains("another process") && text.contains(&process),
        "{text}"
    );
    assert!(text.starts_with(&format!("{}: ", run.display())), "{text}");
    drop(lock);
    assert!(names(&run).is_empty());

    // The file that a killed process leaves behind locks nothing.
    fs::write(run.join(".vqdiffusion.lock"), "process 1 on nowhere\n").unwrap();
    let lock = FolderLock::take(&run).unwrap();
    assert!(FolderLock::take(&run).is_err());
    drop(lock);
    assert!(FolderLock::take(&run).is_ok());
}

#[test]
fn many_take_a_lock_in_turn() {
    let at = folder();
    let inside = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    if let Ok(_lock) = FolderLock::take(at.path()) {
                        let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert_eq!(others, 0);
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                }
            });
        }
    });
}

#[test]
fn a_link_changes_in_one_step() {
    let at = folder();
    let last = at.path().join("last");
    let target = |name: &str| Some(PathBuf::from(name).into_os_string());
    for name in ["step-1", "step-2"] {
        replace_link(&last, target(name).as_deref()).unwrap();
        assert_eq!(fs::read_link(&last).unwrap(), Path::new(name));
    }
    replace_link(&last, None).unwrap();
    replace_link(&last, None).unwrap();
    assert!(names(at.path()).is_empty());

    // A copy of the run that followed the link: its content stays.
    for copy in ["last-copy", "last-copy-2"] {
        fs::create_dir(&last).unwrap();
        fs::write(last.join("weights"), copy).unwrap();
        replace_link(&last, target("step-3").as_deref()).unwrap();
        assert_eq!(fs::read_link(&last).unwrap(), Path::new("step-3"));
        let kept = fs::read_to_string(at.path().join(copy).join("weights"));
        assert_eq!(kept.unwrap(), copy);
        fs::remove_file(&last).unwrap();
    }
}

#[test]
fn only_regular_files_of_a_bounded_size_are_read() {
    let at = folder();
    let path = |name: &str| at.path().join(name);
    fs::write(path("five"), "fünf").unwrap();
    assert_eq!(read_text(&path("five"), 5).unwrap(), "fünf");
    let error = read(&path("five"), 4).unwrap_err();
    assert!(
        error.to_string().ends_with("five: holds more than 4 bytes"),
        "{error}"
    );
    fs::write(path("binary"), [b'a', 0xff]).unwrap();
    let error = read_text(&path("binary"), 9).unwrap_err();
    assert!(
        error.to_string().ends_with("is not text in UTF-8 (byte 1)"),
        "{error}"
    );

    pipe(&path("pipe"));
    let _listener = UnixListener::bind(path("socket")).unwrap();
    symlink("/dev/zero", path("link")).unwrap();
    fs::create_dir(path("folder")).unwrap();
    for (name, kind) in [
        ("pipe", "pipe"),
        ("socket", "socket"),
        ("link", "device"),
        ("folder", "folder"),
    ] {
        // On another thread: it would wait for ever.
        let (done, answer) = mpsc::channel();
        let file = path(name);
        std::thread::spawn(move || done.send(read(&file, u64::MAX).unwrap_err().to_string()));
        let text = answer.recv_timeout(Duration::from_secs(20)).expect(name);
        assert_eq!(
            text,
            format!("{}: is a {kind}, expected a file", path(name).display())
        );
    }
    let error = read(&path("none"), 1).unwrap_err();
    assert_eq!(error.source.kind(), ErrorKind::NotFound);
    assert!(
        error
            .to_string()
            .contains("none: could not be read: No such file"),
        "{error}"
    );
}

/// The examples of FIPS 180-4.
#[test]
fn sha256_is_the_standard_s() {
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(sha256(b""), empty);
    assert_eq!(sha256(b"abc"), abc);
    let at = folder();
    fs::write(at.path().join("abc"), "abc").unwrap();
    assert_eq!(sha256_of_file(&at.path().join("abc")).unwrap(), abc);
}

/// Runs the test after this one in a process of its own, to which the disk is a poor one.
#[test]
fn a_disk_that_lacks_niceties_loses_nothing() {
    let at = folder();
    let library = at.path().join("poor_disk.so");
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/modules/files/poor_disk.c"
    );
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(source)
        .status()
        .expect("a C compiler");
    assert!(compiled.success());
    let ran = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "files::on_a_poor_disk",
            "--ignored",
            "--nocapture",
        ])
        .env("LD_PRELOAD", library)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success() && said.contains("1 passed"),
        "{said}{ran:?}"
    );
}

#[test]
#[ignore = "run by the test before it"]
fn on_a_poor_disk() {
    let at = folder();
    let path = |name: &str| at.path().join(name);
    let probe = path("probe");
    assert!(symlink("x", &probe).is_err(), "the disk is a good one");

    let lock = FolderLock::take(at.path()).unwrap();
    let new = NewFile::beside(&path("a")).unwrap();
    fs::remove_file(new.temporary()).unwrap();
    let mut other = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(&mut other, 0o600);
    let mut file = other
        .write(true)
        .create(true)
        .open(new.temporary())
        .unwrap();
    file.write_all(b"a").unwrap();
    new.commit().unwrap();
    assert_eq!(fs::read(path("a")).unwrap(), b"a");
    for text in ["first", "second"] {
        let new = NewFolder::beside(&path("folder")).unwrap();
        fs::write(new.temporary().join("x"), text).unwrap();
        new.commit().unwrap();
        assert_eq!(fs::read_to_string(path("folder/x")).unwrap(), text);
    }
    replace_link(&path("last"), Some("folder".as_ref())).unwrap();
    fs::create_dir(path("last")).unwrap();
    replace_link(&path("last"), Some("folder".as_ref())).unwrap();
    drop(lock);
    assert_eq!(names(at.path()), ["a", "folder", "last-copy"]);
}

fn pipe(path: &Path) {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string that lives until the call is over.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);
}
