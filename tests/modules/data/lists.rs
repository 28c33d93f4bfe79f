//! Lists of pictures with captions.

use tempfile::TempDir;
use vqdiffusion::data::dataset::{DataLayout, Epoch};
use vqdiffusion::data::{Dataset, Fingerprint, Split};

use super::{names, open, picture, put, skipped};

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
    assert_eq!(dataset.layout, DataLayout::JsonLines);
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
    assert_eq!(dataset.layout, DataLayout::Csv);
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

/// A picture is there as often as its rows say, in one place, with all its captions.
#[test]
fn pictures_that_are_shown_more_often() {
    let root = TempDir::new().unwrap();
    let lines: [&[u8]; 7] = [
        br#"{"file": "a.png", "caption": "one", "repeats": 3}"#,
        br#"{"file": "b.png", "caption": "x"}"#,
        br#"{"file": "a.png", "caption": "two"}"#,
        br#"{"file": "c.png", "caption": "x", "repeats": "2"}"#,
        br#"{"file": "d.png", "caption": "x", "repeats": 0}"#,
        br#"{"file": "e.png", "caption": "x", "repeats": 1001}"#,
        br#"{"file": "f.png", "caption": "x", "repeats": 1.5}"#,
    ];
    put(&root.path().join("list.jsonl"), lines.join(&b'\n'));
    let dataset = open(&root.path().join("list.jsonl"), Split::Train);
    let expected = ["a.png", "a.png", "a.png", "b.png", "c.png", "c.png"];
    assert_eq!(names(&dataset), expected);
    assert!(dataset.items[..3]
        .iter()
        .all(|a| a.captions == ["one", "two"]));
    let found: Vec<_> = skipped(&dataset)
        .iter()
        .map(|(_, why)| why.to_string())
        .collect();
    let expected = ["0", "1001", "1.5"]
        .map(|n| format!("`repeats` is {n}, expected an integer from 1 to 1000"));
    assert_eq!(found, expected);

    let list = root.path().join("list.csv");
    put(
        &list,
        "file,Repeats,caption\na.png,2,x\nb.png,,y\nc.png,many,z\n",
    );
    let dataset = open(&list, Split::Train);
    assert_eq!(names(&dataset), ["a.png", "a.png", "b.png"]);
    let reasons = skipped(&dataset);
    assert_eq!(reasons[0].0, "list.csv line 4");
    assert!(reasons[0].1.contains("`repeats` is many"), "{reasons:?}");
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

#[test]
fn fingerprints_tell_lists_apart() {
    let root = TempDir::new().unwrap();
    let list = root.path().join("captions.jsonl");
    let fingerprint = |lines: &str| {
        put(&list, lines);
        Fingerprint::of_items(&open(root.path(), Split::Train).items)
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
    for (from, to) in [("b.png", "c.png"), ("y", "z"), ("2", "3")] {
        assert!(b.contains(from), "{from}");
        other(format!("{a}\n{}", b.replace(from, to)));
    }
    put(&list, a);
    let of_one = Fingerprint::of_items(&open(root.path(), Split::Train).items);
    let json = br#"[{"picture":"a.png","captions":["x"],"label":1}]"#;
    use sha2::{Digest, Sha256};
    let hex: String = Sha256::digest(json)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(of_one.sha256, hex);
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
