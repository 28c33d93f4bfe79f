//! What networks see of recorded pictures, and measures of pairs of pictures.

use tch::{Kind, Tensor};
use vqdiffusion::metrics::preparation::{tf1_bilinear, ClipCrop, DinoResize, InceptionResize};
use vqdiffusion::metrics::ssim::{ssim, SsimWindow};
use vqdiffusion::picture::{psnr, read_picture, Picture, Pillow};

use crate::case::Case;
use crate::{check, check_value, mean_std};

/// The picture `name` of the case, if it has one.
pub fn picture(case: &Case, name: &str) -> Option<Picture> {
    let path = case.path.join(name);
    path.is_file()
        .then(|| read_picture(&path).unwrap_or_else(|e| panic!("{e}")))
}

/// The pictures `prefix`0.png, 1 …
pub fn pictures(case: &Case, prefix: &str) -> Vec<Picture> {
    let numbered = (0..).map(|i| picture(case, &format!("{prefix}{i}.png")));
    numbered.map_while(|picture| picture).collect()
}

/// The release that the cases were recorded with.
pub const PILLOW: Pillow = Pillow::Since13;
/// Pixels a side of CMMD's picture in the recorded runs.
const CMMD_SIDE: u32 = 336;

pub fn run(case: &mut Case) {
    for (i, picture) in pictures(case, "picture_").iter().enumerate() {
        // Recorded from a run in f64; networks see f32, whose places are rounded.
        let wide = picture.to_tensor().to_kind(Kind::Double);
        let wide = (tf1_bilinear(&wide, 299, 299) - 128.0) / 128.0;
        pixels(case, &format!("inception.{i}.pixels_tf1"), &wide);
        let seen = InceptionResize::Adm.prepare(picture, PILLOW);
        let apart = (seen - wide).abs().max().double_value(&[]);
        let size = picture.width.max(picture.height);
        if apart > 2.0 * f64::from(size) * f64::from(f32::EPSILON) {
            case.fail(format!(
                "inception.{i}.pixels_tf1: {apart:e} between f32 and f64"
            ));
        }
        let resizes = [
            ("pixels", DinoResize::Pil),
            ("pixels_clean", DinoResize::Clean),
            ("pixels_tf1", DinoResize::Tf1),
        ];
        for (name, resize) in resizes {
            let ours = resize.prepare(picture, 224, PILLOW);
            pixels(case, &format!("dino.{i}.{name}"), &ours);
        }
        let crops = [
            (format!("clip.{i}.pixels"), ClipCrop::Openai, 224),
            (format!("clip.{i}.pixels_hf"), ClipCrop::Transformers, 224),
            (format!("cmmd.{i}.pixels"), ClipCrop::SquareFirst, CMMD_SIDE),
        ];
        for (name, crop, side) in crops {
            pixels(case, &name, &crop.prepare(picture, side, PILLOW));
        }
        let eight_bits = [
            (format!("dino_{i}.png"), picture.resize_as(224, 224, PILLOW)),
            (
                format!("clip_{i}.png"),
                ClipCrop::Openai.pixels(picture, 224, PILLOW),
            ),
        ];
        for (name, ours) in eight_bits {
            if self::picture(case, &name) != Some(ours) {
                case.fail(format!("{name}: other pixels"));
            }
        }
    }
    let pairs = (0..).map_while(|i| {
        let side = |side: &str| picture(case, &format!("pair_{i}_{side}.png"));
        Some([side("a")?, side("b")?])
    });
    for (i, [a, b]) in pairs.collect::<Vec<_>>().iter().enumerate() {
        check_value(case, &format!("expected.psnr.{i}"), psnr(a, b));
        let windows = [
            ("", SsimWindow::Gaussian),
            (".uniform7", SsimWindow::Uniform7),
        ];
        for (name, window) in windows {
            let name = format!("expected.ssim.{i}{name}");
            let recorded = window == SsimWindow::Gaussian || case.has(&name);
            if recorded {
                let similarity = ssim(a, b, window).unwrap_or_else(|e| panic!("{e}"));
                check_value(case, &name, similarity);
            }
        }
    }
}

/// Checks `ours` `[3, H, W]` by the recorded part of its pixels and their moments.
fn pixels(case: &mut Case, name: &str, ours: &Tensor) {
    let strided = format!("expected.{name}.strided");
    let step = case
        .meaning(&strided)
        .rsplit("::")
        .next()
        .and_then(|rest| rest.trim_end_matches([']', ' ']).parse::<i64>().ok())
        .unwrap_or_else(|| panic!("{strided}: no step in its meaning"));
    let part = |dim: i64, x: &Tensor| x.slice(dim, None, None, step);
    check(case, &strided, &part(2, &part(1, ours)));
    let moments = mean_std(&ours.flatten(1, -1));
    check(case, &format!("expected.{name}.mean_std"), &moments);
}
