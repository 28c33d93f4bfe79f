//! Data sets in their true layouts, and files that cannot be used.

mod decoding;
mod folders;
mod layouts;
mod lists;
mod rows;
mod shards;

use std::io::Cursor;
use std::path::Path;

use image::{ImageFormat, Rgb, RgbImage};
use vqdiffusion::data::{Dataset, Split};

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
