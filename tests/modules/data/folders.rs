//! Folders of pictures, captions beside them, and files that are none.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;

use image::ImageFormat;
use tempfile::TempDir;
use vqdiffusion::data::dataset::DataLayout;
use vqdiffusion::data::pictures::load;
use vqdiffusion::data::{CropRule, DataError, Dataset, Split, Transform};

use super::{encoded, names, open, picture, put, sample_image, skipped};

#[test]
fn folder_with_sidecars() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for name in [
        "b.png",
        "a.jpg",
        "deep/c.JPEG",
        "lonely.png",
        "bad.png",
        "blank.png",
    ] {
        picture(at, name, 1);
    }
    put(&at.join("a.txt"), "a cat\r\n\r\n  two cats \r\n");
    put(&at.join("b.txt"), "\u{feff}ein Hündchen");
    put(&at.join("deep/c.txt"), "deep");
    put(&at.join("bad.txt"), b"caf\xe9");
    put(&at.join("blank.txt"), " \n");
    put(&at.join("notes.md"), "no picture");
    put(&at.join(".hidden.png"), "no picture");
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, DataLayout::Folder);
    assert_eq!(names(&dataset), ["a.jpg", "b.png", "deep/c.JPEG"]);
    assert_eq!(dataset.items[0].captions, ["a cat", "two cats"]);
    assert_eq!(dataset.items[1].captions, ["ein Hündchen"]);
    let skipped = skipped(&dataset);
    let expected = [
        ("bad.png", "caption file bad.txt: not UTF-8 (byte 3)"),
        ("blank.png", "caption file blank.txt: holds no caption"),
    ];
    assert_eq!(skipped[..2], expected);
    assert_eq!(skipped[2].0, "lonely.png");
    assert_eq!(skipped.len(), 3);
    let error = Dataset::open(at, Split::Train, true).unwrap_err();
    assert!(matches!(error, DataError::Strict { .. }), "{error}");
}

#[test]
fn folder_with_odd_names() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for name in ["CAT.JPG", "héron.png", "deep/dog.png"] {
        picture(at, name, 1);
    }
    put(&at.join("CAT.TXT"), "a cat");
    put(&at.join("héron.txt"), "un héron");
    put(&at.join("deep/dog.txt"), "a dog");
    put(&at.join("new.tiff"), "II*");
    let latin = std::ffi::OsStr::from_bytes(b"caf\xe9.png");
    put(&at.join(latin), "");
    symlink("..", at.join("deep/up")).unwrap();
    symlink(at.join("deep"), at.join("linked")).unwrap();
    let dataset = open(at, Split::Train);
    let expected = ["CAT.JPG", "deep/dog.png", "héron.png", "linked/dog.png"];
    assert_eq!(names(&dataset), expected);
    let captions = |n: usize| dataset.items[n].captions.join("|");
    assert_eq!([0, 1, 2].map(captions), ["a cat", "a dog", "un héron"]);
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0].1, "the name is not UTF-8");
    assert_eq!(
        reasons[1..],
        [("new.tiff", "expected PNG, JPEG, WebP or GIF")]
    );
}

#[test]
fn folder_of_pictures_alone() {
    let root = TempDir::new().unwrap();
    picture(root.path(), "x/2.png", 2);
    picture(root.path(), "x/1.png", 1);
    let dataset = open(root.path(), Split::Train);
    assert_eq!(names(&dataset), ["x/1.png", "x/2.png"]);
    assert!(dataset.items.iter().all(|item| item.captions.is_empty()));

    let empty = TempDir::new().unwrap();
    let error = Dataset::open(empty.path(), Split::Train, false).unwrap_err();
    assert!(error.to_string().contains("no pictures"), "{error}");
    put(&empty.path().join("00000.tar.gz"), "");
    let error = Dataset::open(empty.path(), Split::Train, false).unwrap_err();
    let expected = "the first: 00000.tar.gz: a packed file; unpack it";
    assert!(error.to_string().contains(expected), "{error}");
}

#[test]
fn what_is_no_file_is_no_picture() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    picture(at, "good.png", 1);
    std::fs::create_dir(at.join("folder.png")).unwrap();
    symlink("nowhere", at.join("dangling.png")).unwrap();
    // Endless, and not to be read.
    symlink("/dev/zero", at.join("device.png")).unwrap();
    symlink("good.png", at.join("link.png")).unwrap();
    let list = ["folder", "dangling", "device", "missing", "link"];
    let list = list.map(|name| format!("{{\"file\": \"{name}.png\"}}"));
    put(&at.join("captions.jsonl"), list.join("\n"));
    let dataset = open(at, Split::Train);
    let transform = Transform {
        size: 16,
        crop: CropRule::Center,
        flip: false,
    };
    let reasons = [0, 1, 2, 3].map(|place| {
        let skipped = load(&dataset, place, &transform, 0, 0..1).unwrap_err();
        skipped.to_string()
    });
    let gone = "No such file or directory (os error 2)";
    let expected = [
        "folder.png: is a folder, expected a file".to_string(),
        format!("dangling.png: {gone}"),
        "device.png: is a device, expected a file".into(),
        format!("missing.png: {gone}"),
    ];
    assert_eq!(reasons, expected);
    assert_eq!(load(&dataset, 4, &transform, 0, 0..1).unwrap().len(), 1);
}

#[test]
fn pipes_and_sockets_are_refused_before_they_block() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let pipe = std::ffi::CString::new(at.join("pipe.png").as_os_str().as_bytes()).unwrap();
    // SAFETY: a C string that lives until the call is over.
    assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);
    let _socket = std::os::unix::net::UnixListener::bind(at.join("socket.jpg")).unwrap();
    symlink("/dev/zero", at.join("zero.gif")).unwrap();
    put(&at.join("captions.txt"), "");
    let dataset = open(at, Split::Train);
    assert_eq!(names(&dataset), ["pipe.png", "socket.jpg", "zero.gif"]);
    for (item, kind) in dataset.items.iter().zip(["pipe", "socket", "device"]) {
        let error = dataset.picture(item).unwrap_err().to_string();
        assert_eq!(error, format!("is a {kind}, expected a file"));
        let path = at.join(item.picture.to_string());
        let error = vqdiffusion::picture::read_picture(&path).unwrap_err();
        assert!(error.to_string().contains(kind), "{error}");
    }
}

#[test]
fn usual_endings_are_pictures() {
    let root = TempDir::new().unwrap();
    let names_there = [
        "a.jfif", "b.jpe", "c.JPG", "d.JFIF", "e.jif", "f.pjpeg", "g.apng",
    ];
    for name in names_there {
        let format = match name.ends_with("png") {
            true => ImageFormat::Png,
            false => ImageFormat::Jpeg,
        };
        put(
            &root.path().join(name),
            encoded(&sample_image(9, 9, 1), format),
        );
    }
    let dataset = open(root.path(), Split::Train);
    assert_eq!(names(&dataset), names_there);
    assert!(dataset
        .items
        .iter()
        .all(|item| dataset.picture(item).is_ok()));
}

#[test]
fn names_in_another_unicode_form_are_found() {
    let (composed, apart) = ("h\u{e9}ron", "he\u{301}ron");
    for (on_disk, in_list) in [(composed, apart), (apart, composed)] {
        let root = TempDir::new().unwrap();
        let at = root.path();
        picture(at, &format!("{on_disk}/{on_disk}.png"), 1);
        put(&at.join(format!("{on_disk}/{in_list}.txt")), "un oiseau");
        let beside = open(at, Split::Train);
        assert_eq!(beside.items[0].captions, ["un oiseau"]);
        let list = format!("{{\"file\": \"{in_list}/{in_list}.png\"}}");
        put(&at.join("captions.jsonl"), list);
        let dataset = open(at, Split::Train);
        assert!(dataset.picture(&dataset.items[0]).is_ok());
    }
}

#[test]
fn caption_files_of_kohya() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for name in ["a.png", "b.png", "c.png"] {
        picture(at, name, 1);
    }
    put(&at.join("a.caption"), "a cat\n");
    put(&at.join("b.caption"), "a dog");
    put(&at.join("b.txt"), "dog, animal");
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.items[0].captions, ["a cat"]);
    assert_eq!(dataset.items[1].captions, ["dog, animal", "a dog"]);
    assert_eq!(skipped(&dataset)[0].0, "c.png");
}
