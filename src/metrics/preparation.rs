//! From a picture to what a network sees, pixel for pixel as the originals prepare it.

use tch::{Device, Kind, Tensor};

use crate::picture::{covering, Picture, Pillow};

/// How pictures come to Inception's 299 × 299 pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InceptionResize {
    /// clean-fid: Pillow's bicubic filter on floats, with antialiasing.
    #[default]
    Clean,
    /// pytorch-fid: bilinear without antialiasing, pixel centres at one half.
    LegacyPytorch,
    /// ADM's evaluator, torch-fidelity and StyleGAN: TensorFlow 1's bilinear, without
    /// antialiasing, pixel centres at zero.
    Adm,
}

/// Pixels a side that Inception takes.
const INCEPTION_SIDE: u32 = 299;

impl InceptionResize {
    /// `[3, 299, 299]` f32, near −1…1.
    pub fn prepare(self, picture: &Picture, pillow: Pillow) -> Tensor {
        let side = INCEPTION_SIDE;
        match self {
            InceptionResize::Clean => (picture.resize_f32(side, side, pillow) - 128.0) / 128.0,
            InceptionResize::Adm => {
                (tf1_bilinear(&picture.to_tensor(), side, side) - 128.0) / 128.0
            }
            InceptionResize::LegacyPytorch => {
                let unit = (picture.to_tensor() / 255.0).unsqueeze(0);
                let side = i64::from(side);
                unit.upsample_bilinear2d([side, side], false, None, None)
                    .squeeze_dim(0)
                    * 2.0
                    - 1.0
            }
        }
    }
}

/// How pictures come to DINOv2's square; none is cropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DinoResize {
    /// dgm-eval: Pillow's bicubic filter.
    #[default]
    Pil,
    /// dgm-eval's clean option: the same on floats, not rounded.
    Clean,
    /// torch-fidelity: TensorFlow 1's bilinear, without antialiasing.
    Tf1,
}

const IMAGENET: Normalise = Normalise {
    mean: [0.485, 0.456, 0.406],
    std: [0.229, 0.224, 0.225],
};

impl DinoResize {
    /// `[3, side, side]` f32, each channel by ImageNet's mean and deviation.
    pub fn prepare(self, picture: &Picture, side: u32, pillow: Pillow) -> Tensor {
        let resized = match self {
            DinoResize::Pil => picture.resize_as(side, side, pillow).to_tensor(),
            DinoResize::Clean => picture.resize_f32(side, side, pillow),
            DinoResize::Tf1 => tf1_bilinear(&picture.to_tensor(), side, side),
        };
        IMAGENET.of(&resized)
    }
}

/// What a classifier of ImageNet sees: the picture scaled to 256 pixels on its short side by
/// Pillow's bicubic filter, the centre of 224 × 224 cut out. `[3, 224, 224]` f32.
pub fn imagenet_square(picture: &Picture, pillow: Pillow) -> Tensor {
    let (scaled, _) = covering([picture.width, picture.height], [256, 256]);
    let [left, top] = scaled.map(|length| (length - 224) / 2);
    let square = picture
        .resize_as(scaled[0], scaled[1], pillow)
        .crop(left, top, 224, 224);
    imagenet(&square)
}

/// Pixels by ImageNet's mean and deviation: `[3, H, W]` f32.
pub fn imagenet(picture: &Picture) -> Tensor {
    IMAGENET.of(&picture.to_tensor())
}

/// What part of a picture CLIP sees.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClipCrop {
    /// OpenAI's and open_clip's: scaled, then the centre, halves rounded to even.
    #[default]
    Openai,
    /// The image processor of transformers: halves rounded down.
    Transformers,
    /// The published CMMD: the centre square, then scaled.
    SquareFirst,
}

const CLIP: Normalise = Normalise {
    mean: [0.48145466, 0.4578275, 0.40821073],
    std: [0.26862954, 0.26130258, 0.27577711],
};

impl ClipCrop {
    /// `[3, side, side]` f32, each channel by CLIP's mean and deviation.
    pub fn prepare(self, picture: &Picture, side: u32, pillow: Pillow) -> Tensor {
        CLIP.of(&self.pixels(picture, side, pillow).to_tensor())
    }

    /// The `side` × `side` pixels, by Pillow's bicubic filter.
    pub fn pixels(self, picture: &Picture, side: u32, pillow: Pillow) -> Picture {
        let (width, height) = (picture.width, picture.height);
        if self == ClipCrop::SquareFirst {
            let square = width.min(height);
            let [left, top] = [(width - square) / 2, (height - square) / 2];
            return picture
                .crop(left, top, square, square)
                .resize_as(side, side, pillow);
        }
        let (scaled, down) = covering([width, height], [side, side]);
        let [left, top] = match self {
            ClipCrop::Openai => scaled.map(|length| half_to_even(length - side)),
            _ => down,
        };
        picture
            .resize_as(scaled[0], scaled[1], pillow)
            .crop(left, top, side, side)
    }
}

/// Half of `n`, to the nearest even number where it lies between two.
fn half_to_even(n: u32) -> u32 {
    n / 2 + u32::from(n % 4 == 3)
}

struct Normalise {
    mean: [f64; 3],
    std: [f64; 3],
}

impl Normalise {
    /// Of `[3, H, W]` in 0…255.
    fn of(&self, pixels: &Tensor) -> Tensor {
        let channels = |values: &[f64; 3]| {
            let values = Tensor::from_slice(values).to_kind(Kind::Float);
            values.view([3, 1, 1])
        };
        (pixels / 255.0 - channels(&self.mean)) / channels(&self.std)
    }
}

/// TensorFlow 1's `resize_bilinear` without `align_corners`: output i lies at input
/// i · inputs / outputs, computed in the kind of `pixels` `[3, H, W]` from a scale in f32,
/// as torch-fidelity has it. → `[3, height, width]`.
pub fn tf1_bilinear(pixels: &Tensor, width: u32, height: u32) -> Tensor {
    let size = pixels.size();
    let x = Between::new(size[2], width, pixels.kind());
    let y = Between::new(size[1], height, pixels.kind());
    let rows = |at: &Tensor| {
        let row = pixels.index_select(1, at);
        lerp(
            &row.index_select(2, &x.low),
            &row.index_select(2, &x.high),
            &x.part,
        )
    };
    lerp(&rows(&y.low), &rows(&y.high), &y.part.view([1, -1, 1]))
}

fn lerp(low: &Tensor, high: &Tensor, part: &Tensor) -> Tensor {
    low + (high - low) * part
}

/// The inputs that outputs lie between.
struct Between {
    low: Tensor,  // [outputs] int64
    high: Tensor, // [outputs] int64
    part: Tensor, // [outputs]: the way from low to high
}

impl Between {
    fn new(inputs: i64, outputs: u32, kind: Kind) -> Self {
        let scale = f64::from(inputs as f32 / outputs as f32);
        let places = Tensor::arange(i64::from(outputs), (kind, Device::Cpu));
        let at = places * Tensor::from(scale).to_kind(kind);
        let low = at.floor().to_kind(Kind::Int64).clamp_max(inputs - 1);
        Between {
            high: (&low + 1).clamp_max(inputs - 1),
            part: at - low.to_kind(kind),
            low,
        }
    }
}

/// Pictures as LPIPS takes them: `[3, H, W]` f32 in −1…1.
pub fn symmetric(picture: &Picture) -> Tensor {
    picture.to_tensor() / 127.5 - 1.0
}
