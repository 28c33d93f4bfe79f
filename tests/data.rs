//! Data sets in their true layouts, and files that cannot be used.

use std::io::Cursor;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use tempfile::TempDir;
use vqdiffusion::data::dataset::{Epoch, Layout};
use vqdiffusion::data::pictures::load;
use vqdiffusion::data::prefetch::prefetch;
use vqdiffusion::data::{CropRule, DataError, Dataset, Row, Rows, Split, Transform};
use vqdiffusion::picture::decode;

/// A picture whose values depend on the position, different for every `seed`.
fn sample_image(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let value = |c: u32| ((x * (7 + c) + y * (13 - c) + seed * 31) % 256) as u8;
        Rgb([value(0), value(1), value(2)])
    })
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image
        .write_to(&mut bytes, format)
        .expect("it can be encoded");
    bytes.into_inner()
}

fn put(path: &Path, bytes: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, bytes).expect("a file");
}

fn picture(root: &Path, name: &str, seed: u32) {
    let format = match name.ends_with("png") {
        true => ImageFormat::Png,
        false => ImageFormat::Jpeg,
    };
    put(
        &root.join(name),
        encoded(&sample_image(40, 30, seed), format),
    );
}

fn open(root: &Path, split: Split) -> Dataset {
    Dataset::open(root, split, false).expect("a data set")
}

fn names(dataset: &Dataset) -> Vec<String> {
    let name = |item: &vqdiffusion::data::Item| item.picture.to_string();
    dataset.items.iter().map(name).collect()
}

/// (what, reason) of every skipped item.
fn skipped(dataset: &Dataset) -> Vec<(&str, &str)> {
    let pairs = dataset.skipped.iter();
    pairs
        .map(|s| (s.what.as_str(), s.reason.as_str()))
        .collect()
}

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
    assert_eq!(dataset.layout, Layout::Folder);
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
}

#[test]
fn json_lines() {
    let root = TempDir::new().unwrap();
    let lines: [&[u8]; 10] = [
        br#"{"file": "a.png", "caption": " red heart ", "style": "flat", "label": 3}"#,
        br#"{"file_name": "b.png", "captions": ["one", "two", ""]}"#,
        b"",
        br#"{"file": "a.png", "file_name": "x", "text": "heart", "captions": null}"#,
        b"{\"file\": \"c.png\", \"caption\": \"caf\xe9\"}",
        br#"{"file": "d.png"}"#,
        br#"{"caption": "no file"}"#,
        br#"{"file": "e.png", "caption": "x", "label": "cat"}"#,
        br#"{"file": "a.png", "caption": "x", "label": 4}"#,
        br#"["f.png", "x"]"#,
    ];
    put(&root.path().join("captions.jsonl"), lines.join(&b'\n'));
    let dataset = open(root.path(), Split::Train);
    assert_eq!(dataset.layout, Layout::JsonLines);
    assert_eq!(dataset.epoch, Epoch::Pictures);
    assert_eq!(names(&dataset), ["a.png", "b.png", "e.png"]);
    assert_eq!(dataset.items[0].captions, ["red heart", "heart"]);
    assert_eq!(dataset.items[2].captions, ["x"], "its label is no integer");
    assert_eq!(dataset.items[2].label, None);
    assert_eq!(dataset.items[0].label, Some(3));
    assert_eq!(dataset.items[1].captions, ["one", "two"]);
    let reasons = skipped(&dataset);
    let places: Vec<&str> = reasons.iter().map(|(what, _)| *what).collect();
    let expected = [5, 7, 9, 10, 6].map(|n| format!("captions.jsonl line {n}"));
    assert_eq!(places, expected);
    assert!(reasons[0].1.contains("not UTF-8"), "{reasons:?}");
    assert!(reasons[1].1.contains("missing field `file`"), "{reasons:?}");
    let expected = [
        "label 4 for a.png, which has the label 3",
        "expected one JSON object a line",
        "no caption for d.png",
    ];
    let found: Vec<&str> = reasons[2..].iter().map(|(_, reason)| *reason).collect();
    assert_eq!(found, expected);
    // The list itself names the same data set.
    let by_list = open(&root.path().join("captions.jsonl"), Split::Train);
    assert_eq!((by_list.root, by_list.items), (dataset.root, dataset.items));
}

#[test]
fn comma_separated_values() {
    let root = TempDir::new().unwrap();
    let list = root.path().join("pets.csv");
    let rows: [&[u8]; 5] = [
        b"file,caption,label\n",
        b"a.jpg,\"a \"\"big\"\" cat,\nasleep\",7\n",
        b"b.jpg,caf\xe9,\n",
        b"a.jpg,second,\n",
        b"c.jpg,third,seven\n",
    ];
    put(&list, rows.concat());
    let dataset = open(&list, Split::Train);
    assert_eq!(dataset.layout, Layout::Csv);
    assert_eq!(names(&dataset), ["a.jpg", "c.jpg"]);
    assert_eq!(
        dataset.items[0].captions,
        ["a \"big\" cat,\nasleep", "second"]
    );
    let labels = [0, 1].map(|n| dataset.items[n].label);
    assert_eq!(labels, [Some(7), None], "'seven' is no integer");
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0].0, "pets.csv line 4");
    assert!(reasons[0].1.contains("not UTF-8"), "{reasons:?}");
    assert_eq!(reasons.len(), 1);

    // A byte order mark, capitals, quotes, Windows' line ends; too many fields.
    let rows = "\u{feff}\"File\" , Caption\r\na.jpg,\"one, two\"\r\nb.jpg,one, two\r\nc.jpg,\r\n";
    put(&list, rows);
    let dataset = open(&list, Split::Train);
    assert_eq!(names(&dataset), ["a.jpg"]);
    assert_eq!(dataset.items[0].captions, ["one, two"]);
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0].0, "pets.csv line 3");
    assert!(reasons[0].1.contains("3 fields, expected 2"), "{reasons:?}");
    assert_eq!(reasons[1], ("pets.csv line 4", "no caption for c.jpg"));

    for (rows, problem) in [
        (
            "file|caption\na.jpg|x\n",
            "no column 'file', only: file|caption",
        ),
        ("file,caption\n", "names no picture"),
        ("", "no column 'file'"),
    ] {
        put(&list, rows);
        let error = Dataset::open(&list, Split::Train, false).unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    put(&list, "path,caption\na.jpg,x\n");
    let error = Dataset::open(&list, Split::Train, false)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("no column 'file', only: path, caption"),
        "{error}"
    );
}

#[test]
fn mscoco() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for (split, ids) in [("train", [9u64, 581_929]), ("val", [42, 73])] {
        let captions = serde_json::json!({
            "info": {"year": 2014},
            "images": [],
            "annotations": [
                {"image_id": ids[1], "id": 1, "caption": "A man on a horse."},
                {"image_id": ids[0], "id": 2, "caption": "Food.\n"},
                {"image_id": ids[1], "id": 3, "caption": "A horse."},
                {"image_id": ids[1], "id": 4, "caption": " \n"},
            ],
        });
        put(
            &at.join(format!("annotations/captions_{split}2014.json")),
            captions.to_string(),
        );
        for id in ids {
            let name = format!("{split}2014/{split}2014/COCO_{split}2014_{id:012}.jpg");
            picture(at, &name, id as u32);
        }
    }
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::Coco);
    let expected = ["000000000009", "000000581929"]
        .map(|id| format!("train2014/train2014/COCO_train2014_{id}.jpg"));
    assert_eq!(names(&dataset), expected);
    assert_eq!(dataset.items[1].captions, ["A man on a horse.", "A horse."]);
    assert_eq!(dataset.items[0].captions, ["Food."]);
    assert_eq!(
        skipped(&dataset),
        [("a caption of picture 581929", "the caption is empty")]
    );
    assert_eq!(dataset.epoch, Epoch::Captions);
    for item in open(at, Split::Val).items.iter().chain(&dataset.items) {
        assert!(
            at.join(item.picture.to_string()).exists(),
            "{}",
            item.picture
        );
    }
    let error = Dataset::open(at, Split::Test, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("captions_test2014.json"), "{error}");
}

#[test]
fn mscoco_2017_own_names_and_a_bad_annotation() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let captions = serde_json::json!({
        "images": [{"id": 1, "file_name": "000000000001.jpg"}, {"id": 3, "file_name": "cat.png"}],
        "annotations": [
            {"image_id": 1, "id": 1, "caption": null},
            {"image_id": 1, "id": 2, "caption": "one"},
            {"image_id": 2, "id": 3, "caption": "two"},
            {"image_id": "3", "id": 4, "caption": "three"},
            {"id": 5, "caption": "of nothing"},
            "no annotation",
        ],
    });
    let with_nan = captions.to_string().replace("\"id\":3,", "\"id\":NaN,");
    assert!(with_nan.contains("NaN"));
    put(&at.join("annotations/captions_train2017.json"), with_nan);
    picture(at, "train2017/000000000001.jpg", 1);
    picture(at, "train2017/000000000002.jpg", 2);
    picture(at, "images/cat.png", 3);
    let dataset = open(at, Split::Train);
    let expected = [
        "train2017/000000000001.jpg",
        "train2017/000000000002.jpg",
        "images/cat.png",
    ];
    assert_eq!(names(&dataset), expected);
    let captions: Vec<_> = dataset.items.iter().flat_map(|i| &i.captions).collect();
    assert_eq!(captions, ["one", "two", "three"]);
    let reasons = skipped(&dataset);
    let expected = [
        ("a caption of picture 1", "`caption` is null, expected text"),
        ("annotation 5", "`image_id` is null, expected a number"),
        ("annotation 6", "`image_id` is null, expected a number"),
    ];
    assert_eq!(reasons, expected);

    put(
        &at.join("annotations/captions_train2017.json"),
        captions_of_cat(),
    );
    let dataset = open(at, Split::Train);
    assert_eq!(names(&dataset), ["images/cat.png"]);
    assert!(dataset.picture(&dataset.items[0]).is_ok());
}

fn captions_of_cat() -> String {
    let captions = serde_json::json!({
        "images": [{"id": 7, "file_name": "cat.png"}],
        "annotations": [{"image_id": 7, "caption": "a cat"}],
    });
    captions.to_string()
}

#[test]
fn cub_200() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let birds = [
        "001.Albatross/Albatross_0001",
        "002.Auk/Auk_0007",
        "002.Auk/Auk_0009",
    ];
    // Protocol 0, as Python 2 writes a list of strings.
    let pickle = |names: &[&str]| {
        let entries = names.iter().enumerate();
        let entries: String = entries
            .map(|(n, name)| format!("S'{name}'\np{}\na", n + 1))
            .collect();
        format!("(lp0\n{entries}.")
    };
    put(&at.join("train/filenames.pickle"), pickle(&birds));
    put(&at.join("test/filenames.pickle"), pickle(&birds[..1]));
    for bird in &birds {
        picture(at, &format!("images/{bird}.jpg"), 5);
    }
    for bird in &birds[..2] {
        let captions: String = (0..10).map(|n| format!("bird {n} of {bird}\n")).collect();
        put(&at.join(format!("text/text/{bird}.txt")), captions);
    }
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::Cub);
    assert_eq!(dataset.items.len(), 2);
    assert_eq!(dataset.epoch, Epoch::Pictures);
    assert_eq!(dataset.items[1].captions.len(), 10);
    assert_eq!(dataset.items[1].captions[3], "bird 3 of 002.Auk/Auk_0007");
    assert!(at.join(dataset.items[1].picture.to_string()).exists());
    assert_eq!(skipped(&dataset)[0].0, "text/text/002.Auk/Auk_0009.txt");
    assert_eq!(open(at, Split::Test).items.len(), 1);
    assert_eq!(open(at, Split::Val).items, open(at, Split::Test).items);

    // As AttnGAN and DF-GAN ship it.
    std::fs::create_dir(at.join("CUB_200_2011")).unwrap();
    std::fs::rename(at.join("images"), at.join("CUB_200_2011/images")).unwrap();
    std::fs::rename(at.join("text/text"), at.join("words")).unwrap();
    std::fs::remove_dir(at.join("text")).unwrap();
    std::fs::rename(at.join("words"), at.join("text")).unwrap();
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::Cub);
    assert_eq!(dataset.items.len(), 2);
    assert_eq!(dataset.items[1].captions.len(), 10);
    assert!(dataset.picture(&dataset.items[1]).is_ok());
    assert_eq!(open(at, Split::Test).items.len(), 1);

    put(&at.join("train/filenames.pickle"), "(dp0\n.");
    let error = Dataset::open(at, Split::Train, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("pickled list of file names"), "{error}");
}

#[test]
fn imagenet() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let list = "n02000002/x_1.JPEG\nn01000001/y_2.JPEG\n\nnonsense\n";
    put(&at.join("ILSVRC2012_name_train.txt"), list);
    put(&at.join("ILSVRC2012_name_val.txt"), "n02000002/v.JPEG\n");
    for name in [
        "n02000002/x_1.JPEG",
        "n01000001/y_2.JPEG",
        "n01500000/z.JPEG",
    ] {
        picture(at, &format!("train/{name}"), 3);
    }
    let dataset = open(at, Split::Train);
    assert_eq!(dataset.layout, Layout::ImageNet);
    let labels: Vec<_> = dataset.items.iter().map(|item| item.label).collect();
    assert_eq!(
        labels,
        [Some(2), Some(0)],
        "places among the three sorted classes"
    );
    assert_eq!(names(&dataset)[0], "train/n02000002/x_1.JPEG");
    assert_eq!(
        skipped(&dataset),
        [(
            "ILSVRC2012_name_train.txt line 4",
            "'nonsense' is not wnid/file"
        )]
    );
    assert_eq!(
        open(at, Split::Val).items[0].label,
        Some(2),
        "labels as in training"
    );
}

#[test]
fn lists_that_are_none() {
    let root = TempDir::new().unwrap();
    let error = Dataset::open(&root.path().join("nowhere"), Split::Train, false).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
    put(&root.path().join("list.xml"), "<xml/>");
    let error = Dataset::open(&root.path().join("list.xml"), Split::Train, false).unwrap_err();
    assert!(
        error.to_string().contains("(.jsonl, .csv or .tsv)"),
        "{error}"
    );
}

/// A JPEG header that says what follows has `components` colour components.
fn jpeg_header(bits: u8, components: u8) -> Vec<u8> {
    let mut bytes = vec![
        0xFF,
        0xD8,
        0xFF,
        0xC0,
        0,
        8 + 3 * components,
        bits,
        0,
        8,
        0,
        8,
        components,
    ];
    for n in 1..=components {
        bytes.extend([n, 0x11, 0]);
    }
    bytes.extend([0xFF, 0xDA, 0, 2, 1, 2, 3, 0xFF, 0xD9]);
    bytes
}

#[test]
fn damaged_and_unusual_pictures_are_refused_by_name() {
    let image = sample_image(40, 30, 1);
    let jpeg = encoded(&image, ImageFormat::Jpeg);
    let png = encoded(&image, ImageFormat::Png);
    let grey16 = include_bytes!("pictures/grey16.png");
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30]); // 30000 × 30000
    let crc = crc(&huge[12..29]);
    huge[29..33].copy_from_slice(&crc.to_be_bytes());
    let cases: [(&[u8], &str); 10] = [
        (b"", "the file is empty"),
        (
            b"not a picture at all",
            "not a picture, expected PNG, JPEG, WebP or GIF",
        ),
        (&jpeg[..jpeg.len() / 2], "the JPEG data end too early"),
        (&jpeg[..jpeg.len() - 2], "the JPEG data end too early"),
        (&jpeg[..30], "the JPEG data end too early"),
        (
            &jpeg_header(8, 5),
            "5 colour components, expected 1, 3 or 4",
        ),
        (&jpeg_header(12, 3), "12 bits a channel, expected 8"),
        (
            grey16,
            "16 bits of grey, expected 8: programs disagree on how they become 8",
        ),
        (b"BM\0\0", "a BMP file, expected PNG, JPEG, WebP or GIF"),
        (
            &huge,
            "30000 by 30000 pixels, expected at most 89478485 in all",
        ),
    ];
    for (bytes, expected) in cases {
        assert_eq!(decode(bytes).unwrap_err().to_string(), expected);
    }
    assert!(decode(&png[..png.len() / 2]).is_err());
    assert_eq!(decode(&png).unwrap().rgb, image.into_raw());
    assert_eq!(decode(&jpeg).unwrap().width, 40);
}

/// CRC-32 of a PNG chunk.
fn crc(bytes: &[u8]) -> u32 {
    let mut hasher = flate2::Crc::new();
    hasher.update(bytes);
    hasher.sum()
}

#[test]
fn grey_and_transparent_pictures() {
    let grey = image::GrayImage::from_pixel(2, 1, image::Luma([9]));
    let mut bytes = Cursor::new(Vec::new());
    grey.write_to(&mut bytes, ImageFormat::Png).unwrap();
    assert_eq!(decode(bytes.get_ref()).unwrap().rgb, [9; 6]);

    let pixels = [[10, 20, 30, 0], [10, 20, 30, 255], [10, 20, 30, 51]];
    let clear = image::RgbaImage::from_raw(3, 1, pixels.concat()).unwrap();
    let mut bytes = Cursor::new(Vec::new());
    clear.write_to(&mut bytes, ImageFormat::Png).unwrap();
    let expected = [255, 255, 255, 10, 20, 30, 206, 208, 210]; // c/5 + 255·4/5
    assert_eq!(decode(bytes.get_ref()).unwrap().rgb, expected);
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
fn rows_are_captions_or_pictures() {
    let item = |captions: usize| vqdiffusion::data::Item {
        picture: "x.png".into(),
        captions: vec!["caption".into(); captions],
        label: None,
    };
    let items = [0, 2, 0, 0, 1, 3, 0].map(item);
    let mut expected = Vec::new();
    for (item, captions) in items.iter().map(|item| item.captions.len()).enumerate() {
        expected.extend((0..captions).map(|n| Row {
            item,
            caption: Some(n),
        }));
    }
    let rows = |epoch| {
        let rows = Rows::new(epoch, &items);
        let all: Vec<Row> = (0..rows.len()).map(|n| rows.at(n)).collect();
        all
    };
    assert_eq!(rows(Epoch::Captions), expected);
    let pictures: Vec<usize> = rows(Epoch::Pictures).iter().map(|r| r.item).collect();
    assert_eq!(pictures, [0, 1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_thread_that_ends_early_is_an_error() {
    let numbers = |panics_at: u64| {
        let make = move |n| match n {
            _ if n == panics_at => panic!("the disk burns"),
            _ => Ok(10 * n),
        };
        prefetch(2, 3..7, make).unwrap()
    };
    let all: Result<Vec<u64>, DataError> = numbers(99).collect();
    assert_eq!(all.unwrap(), [30, 40, 50, 60]);
    let mut results = numbers(5);
    assert!(matches!(results.next(), Some(Ok(30))));
    assert!(matches!(results.next(), Some(Ok(40))));
    for problem in ["panicked: the disk burns", "has ended"] {
        let error = results.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
    assert!(results.next().is_none(), "all four numbers had an answer");
}

#[test]
fn fingerprints_tell_lists_apart() {
    let root = TempDir::new().unwrap();
    let list = root.path().join("captions.jsonl");
    let fingerprint = |lines: &str| {
        put(&list, lines);
        open(root.path(), Split::Train).fingerprint()
    };
    let (a, b) = (
        r#"{"file": "a.png", "caption": "x", "label": 1}"#,
        r#"{"file": "b.png", "caption": "y", "label": 2}"#,
    );
    let first = fingerprint(&format!("{a}\n{b}"));
    assert_eq!(first.items, 2);
    assert_eq!(first, fingerprint(&format!("{a}\r\n\r\n{b}\n")));
    let other = |lines: String| assert_ne!(first.sha256, fingerprint(&lines).sha256, "{lines}");
    other(a.into());
    other(format!("{b}\n{a}"));
    other(format!("{a}\n{}", b.replace("b.png", "c.png")));
    other(format!("{a}\n{}", b.replace('y', "z")));
    other(format!("{a}\n{}", b.replace('2', "3")));
    put(&list, a);
    let of_one = open(root.path(), Split::Train).fingerprint();
    let json = br#"[{"picture":"a.png","captions":["x"],"label":1}]"#;
    use sha2::{Digest, Sha256};
    let hex: String = Sha256::digest(json)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(of_one.sha256, hex);
}

#[test]
fn pictures_are_what_pillow_makes_of_them() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures");
    let text = std::fs::read_to_string(folder.join("pillow.json")).unwrap();
    let recorded: std::collections::BTreeMap<String, Vec<u8>> =
        serde_json::from_str(&text).unwrap();
    assert_eq!(recorded.len(), 9);
    for (name, expected) in recorded {
        let picture = vqdiffusion::picture::read_picture(&folder.join(&name)).unwrap();
        assert_eq!((picture.width, picture.height), (12, 8), "{name}");
        let errors = picture
            .rgb
            .iter()
            .zip(&expected)
            .map(|(a, b)| a.abs_diff(*b));
        let worst = errors.max().unwrap();
        // JPEG leaves the rounding of its transform and colours open.
        let most = match name.ends_with(".jpg") {
            true => 3,
            false => 0,
        };
        assert!(worst <= most, "{name}: {worst}");
    }
}

#[test]
fn what_follows_a_jpeg_is_not_looked_at() {
    let jpeg = encoded(&sample_image(40, 30, 1), ImageFormat::Jpeg);
    let plain = decode(&jpeg).unwrap();
    let half = &jpeg[..jpeg.len() / 2];
    let tails: [&[u8]; 5] = [
        b"\0\0\0\x18ftypmp42",
        &jpeg,
        half,
        &[0xFF; 9],
        &[0xFF, 0xDA],
    ];
    for tail in tails {
        let long = [&jpeg, tail].concat();
        assert_eq!(decode(&long).unwrap(), plain);
    }
    // A preview in the header has an end marker of its own, which is not the picture's.
    let length = (2 + jpeg.len() as u16).to_be_bytes();
    let preview = [&jpeg[..2], &[0xFF, 0xE2], &length, &jpeg, &jpeg[2..]].concat();
    assert_eq!(decode(&preview).unwrap(), plain);
    let cut = &preview[..preview.len() - jpeg.len() / 2];
    let error = decode(cut).unwrap_err().to_string();
    assert_eq!(error, "the JPEG data end too early");
    let progressive = include_bytes!("pictures/progressive.jpg");
    for end in 2..progressive.len() {
        assert!(decode(&progressive[..end]).is_err(), "{end} bytes");
    }
}

/// A PNG of 8 × 8 pixels with a palette of `length` bytes and further chunks.
fn palette_png(length: usize, chunks: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8], data: &[u8]| {
        let body = [kind, data].concat();
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(&body);
        bytes.extend(crc(&body).to_be_bytes());
    };
    chunk(b"IHDR", &[0, 0, 0, 8, 0, 0, 0, 8, 8, 3, 0, 0, 0]);
    chunk(b"PLTE", &vec![7; length]);
    for (kind, data) in chunks {
        chunk(kind, data);
    }
    chunk(b"IDAT", &deflated(&[0; 72]));
    chunk(b"IEND", b"");
    bytes
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_decoder_that_panics_refuses_the_picture() {
    assert_eq!(decode(&palette_png(6, &[])).unwrap().rgb, [7; 192]);
    for length in [0, 1, 2, 4, 5] {
        // Whether read or refused: by an answer.
        if let Err(problem) = decode(&palette_png(length, &[])) {
            assert!(!problem.to_string().contains("range"), "{problem}");
        }
    }
    let root = TempDir::new().unwrap();
    let at = root.path();
    put(&at.join("a.png"), palette_png(4, &[]));
    picture(at, "b.png", 1);
    let dataset = open(at, Split::Train);
    let transform = Transform {
        size: 16,
        crop: CropRule::Center,
        flip: false,
    };
    if let Err(skipped) = load(&dataset, 0, &transform, 0, 0..1) {
        assert_eq!(skipped.what, "a.png");
    }
    assert!(load(&dataset, 1, &transform, 0, 0..1).is_ok());
}

#[test]
fn compressed_texts_are_bounded() {
    let root = TempDir::new().unwrap();
    let png = root.path().join("x.png");
    let zeros = deflated(&vec![0; 64 << 20]);
    assert!(zeros.len() < 100_000);
    let international = [b"key\0\x01\0\0\0".as_slice(), &zeros].concat();
    let latin = [b"key\0\0".as_slice(), &zeros].concat();
    let profile = [b"name\0\0".as_slice(), &zeros].concat();
    let few = deflated(b"some words");
    let readable = [b"key\0\x01\0\0\0".as_slice(), &few].concat();
    put(&png, palette_png(6, &[(b"iTXt", &readable)]));
    let texts = vqdiffusion::picture::read_png_texts(&png).unwrap();
    assert_eq!(texts, [("key".to_string(), "some words".to_string())]);
    put(&png, palette_png(6, &[(b"iTXt", &international)]));
    let error = vqdiffusion::picture::read_png_texts(&png).unwrap_err();
    assert!(error.to_string().contains("x.png"), "{error}");
    // The pixels do not need the texts.
    for chunk in [
        (b"iTXt", &international),
        (b"zTXt", &latin),
        (b"iCCP", &profile),
    ] {
        let bytes = palette_png(6, &[(chunk.0.as_slice(), chunk.1)]);
        assert_eq!(decode(&bytes).unwrap().rgb, [7; 192]);
    }
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
fn lists_as_other_programs_write_them() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    let read = |name: &str, bytes: Vec<u8>| {
        put(&at.join(name), bytes);
        let dataset = open(&at.join(name), Split::Train);
        let captions = dataset.items.iter().map(|item| item.captions.join("|"));
        (names(&dataset), captions.collect::<Vec<_>>(), dataset)
    };
    let utf16 = |text: &str| -> Vec<u8> {
        let words = [0xFEFF].into_iter().chain(text.encode_utf16());
        words.flat_map(u16::to_le_bytes).collect()
    };
    let excel = "file\tcaption\r\na.png\té, \"two\"\r\nb.png\t\"x, y\"\r\n";
    for bytes in [
        utf16(excel),
        excel.into(),
        format!("\u{feff}{excel}").into(),
    ] {
        let (files, captions, _) = read("excel.csv", bytes);
        assert_eq!(files, ["a.png", "b.png"]);
        assert_eq!(captions, ["é, \"two\"", "x, y"]);
    }
    let (files, captions, _) = read("x.tsv", "file\ttext\na.png\tone, two\n".into());
    assert_eq!(
        (files[0].as_str(), captions[0].as_str()),
        ("a.png", "one, two")
    );
    let (_, captions, _) = read("x.csv", "file;caption\r\na.png;one, two\r\n".into());
    assert_eq!(captions, ["one, two"]);
    let json = "{\"file_name\": \"a.png\", \"text\": \"é\"}\r\n";
    let (_, captions, _) = read("x.jsonl", utf16(json));
    assert_eq!(captions, ["é"]);

    // Python's json.dumps and pandas.
    let lines = [
        r#"{"file_name": "a.png", "text": "NaN is not \"NaN\"", "score": NaN}"#,
        r#"{"file_name": "b.png", "text": NaN, "caption": "b", "x": [-Infinity, Infinity]}"#,
        r#"{"file_name": "c.png", "caption": ["c", "cc", null], "label": NaN}"#,
        r#"{"file_name": "d.png", "captions": "d", "label": 1.0}"#,
        r#"{"file_name": "e.png", "caption": "e", "label": true}"#,
        r#"{"file_name": "f.png", "caption": 5}"#,
        r#"{"file_name": "g.png", "caption": "g", "score": NaNa}"#,
        r#"{"file_name": ["h.png"], "caption": "h"}"#,
    ];
    let (files, captions, dataset) = read("x.jsonl", lines.join("\n").into());
    assert_eq!(files, ["a.png", "b.png", "c.png", "d.png", "e.png"]);
    assert_eq!(captions, ["NaN is not \"NaN\"", "b", "c|cc", "d", "e"]);
    let labels: Vec<_> = dataset.items.iter().map(|item| item.label).collect();
    assert_eq!(labels, [None, None, None, Some(1), None]);
    let lines: Vec<&str> = skipped(&dataset).iter().map(|(what, _)| *what).collect();
    assert_eq!(lines, [6, 7, 8].map(|n| format!("x.jsonl line {n}")));
    assert_eq!(
        dataset.skipped[0].reason,
        "`caption` holds 5, expected text"
    );
}

#[test]
fn an_open_quote_swallows_no_rows() {
    let root = TempDir::new().unwrap();
    let list = root.path().join("x.csv");
    let read = |rows: &str| {
        put(&list, format!("file,caption\n{rows}"));
        let dataset = open(&list, Split::Train);
        let what = dataset.skipped.iter().map(|s| s.to_string());
        (names(&dataset).join(" "), what.collect::<Vec<_>>())
    };
    let (files, skipped) = read("a.png,\"a cat\nb.png,b\nc.png,c\n");
    assert_eq!(files, "b.png c.png");
    assert_eq!(skipped, ["x.csv line 2: its quote is not closed"]);
    // The quote of a later row closes it, with words behind.
    let (files, skipped) = read("a.png,x\nb.png,\"a cat\nc.png,\"b\"\nd.png,d");
    assert_eq!(files, "a.png c.png d.png");
    assert!(skipped[0].starts_with("x.csv line 3: text behind a closing quote"));
    let (files, skipped) = read("a.png,\"two\nlines\"\nb.png,6\" tall\nc.png,\"\"\"c\"\"\"");
    assert_eq!((files.as_str(), skipped.len()), ("a.png b.png c.png", 0));
    let error = Dataset::open(&list, Split::Train, true);
    assert!(error.is_ok());
    put(&list, "file,\"caption\na.png,x\n");
    let error = Dataset::open(&list, Split::Train, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("line 1: its quote is not closed"), "{error}");
}

#[test]
fn hugging_face_folders() {
    let root = TempDir::new().unwrap();
    let at = root.path();
    for split in ["train", "test"] {
        let line = format!("{{\"file_name\": \"0.png\", \"text\": \"of {split}\"}}");
        put(&at.join(split).join("metadata.jsonl"), line);
        picture(at, &format!("{split}/0.png"), 1);
    }
    for (split, caption) in [(Split::Train, "of train"), (Split::Test, "of test")] {
        let dataset = open(at, split);
        assert!(dataset.has_parts);
        assert_eq!(dataset.items[0].captions, [caption]);
        assert!(dataset.picture(&dataset.items[0]).is_ok());
    }
    put(
        &at.join("metadata.csv"),
        "file_name,text\ntrain/0.png,of the root\n",
    );
    let dataset = open(at, Split::Train);
    assert!(!dataset.has_parts);
    assert_eq!(dataset.items[0].captions, ["of the root"]);
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
