//! Picture files to pixels.

use std::io::Cursor;
use std::path::Path;

use image::ImageFormat;
use tempfile::TempDir;
use vqdiffusion::data::layout::is_picture;
use vqdiffusion::data::pictures::load;
use vqdiffusion::data::{CropRule, Split, Transform};
use vqdiffusion::picture::decode;

use super::{encoded, open, picture, put, sample_image};

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
    let grey16 = include_bytes!("../../pictures/grey16.png");
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
    let progressive = include_bytes!("../../pictures/progressive.jpg");
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
fn damaged_pictures_of_every_kind_are_an_answer() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pictures");
    let mut read = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !is_picture(&path) {
            continue;
        }
        let whole = std::fs::read(&path).unwrap();
        for end in (0..whole.len()).step_by(7) {
            let cut = decode(&whole[..end]);
            // The pixels of a GIF and a lossy WebP may end before the file does.
            if path.extension().is_some_and(|e| e == "jpg" || e == "png") {
                let iend = path.extension().is_some_and(|e| e == "png") && end + 12 >= whole.len();
                assert!(cut.is_err() || iend, "{}, {end} bytes", path.display());
            }
        }
        for at in (0..whole.len()).step_by(3) {
            for value in [0, 0xFF, whole[at] ^ 1] {
                let mut bytes = whole.clone();
                bytes[at] = value;
                match decode(&bytes) {
                    Ok(picture) => {
                        let size = picture.width as usize * picture.height as usize * 3;
                        assert_eq!(picture.rgb.len(), size);
                        read += 1;
                    }
                    Err(problem) => assert!(!problem.to_string().is_empty()),
                }
            }
        }
    }
    assert!(read > 100, "{read}");
}
