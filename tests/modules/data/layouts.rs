//! Data sets in their true layouts.

use tempfile::TempDir;
use vqdiffusion::data::dataset::{DataLayout, Epoch};
use vqdiffusion::data::{Dataset, Split};

use super::{names, open, picture, put, skipped};

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
    assert_eq!(dataset.layout, DataLayout::Coco);
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
    assert_eq!(dataset.layout, DataLayout::Cub);
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
    assert_eq!(dataset.layout, DataLayout::Cub);
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
    let list = "n02000002/x_1.JPEG\nn01000001/y_2.JPEG\n\nnonsense\nn01500000/gone.JPEG\n";
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
    assert_eq!(dataset.layout, DataLayout::ImageNet);
    let labels: Vec<_> = dataset.items.iter().map(|item| item.label).collect();
    assert_eq!(
        labels,
        [Some(2), Some(0), Some(1)],
        "places among the three sorted classes"
    );
    assert_eq!(names(&dataset)[0], "train/n02000002/x_1.JPEG");
    assert!(dataset.picture(&dataset.items[1]).is_ok());
    assert!(dataset.picture(&dataset.items[2]).is_err());
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
