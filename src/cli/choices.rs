//! Values of the library's options that are chosen by name.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::checkpoint::pytorch::DType;
use crate::checkpoint::WeightSet;
use crate::clip::ClipActivation;
use crate::data::{CropRule, Split};
use crate::diffusion::{RevealOrder, ReverseRule, Times};
use crate::evaluate::emoji::asked::Ask;
use crate::metrics::networks::dinov2::PositionTable;
use crate::metrics::preparation::{ClipCrop, DinoResize, InceptionResize};
use crate::picture::Pillow;
use crate::pipeline::convert::Target;
use crate::pipeline::Ranking;
use crate::torch::device::Precision;

/// A parser of the `choices`: name, help, value.
fn parser<T: Copy + Send + Sync + 'static>(
    choices: &'static [(&'static str, &'static str, T)],
) -> impl TypedValueParser<Value = T> {
    let values = choices.iter().map(|(name, help, _)| {
        let value = PossibleValue::new(*name);
        match help.is_empty() {
            true => value,
            false => value.help(*help),
        }
    });
    PossibleValuesParser::new(values).try_map(move |name| {
        let chosen = choices.iter().find(|(n, _, _)| *n == name);
        chosen.map(|(_, _, value)| *value).ok_or("not a choice")
    })
}

pub fn precision() -> impl TypedValueParser<Value = Precision> {
    parser(&[
        ("f32", "32-bit floating point", Precision::F32),
        (
            "bf16",
            "bfloat16: the range of f32, 8 bits of precision",
            Precision::Bf16,
        ),
        ("f16", "IEEE half precision", Precision::F16),
    ])
}

pub fn times() -> impl TypedValueParser<Value = Times> {
    parser(&[
        (
            "even",
            "At even distances: as many tokens at every step",
            Times::Even,
        ),
        (
            "cosine",
            "By the share of noise, as a cosine: few tokens first, many at the end",
            Times::Cosine,
        ),
    ])
}

pub fn order() -> impl TypedValueParser<Value = RevealOrder> {
    parser(&[
        ("independent", "Each by itself", RevealOrder::Independent),
        (
            "halton",
            "Along a Halton sequence over the token grid: far from each other",
            RevealOrder::Halton,
        ),
    ])
}

pub fn ask() -> impl TypedValueParser<Value = Ask> {
    parser(&[
        (
            "caption",
            "The first caption: the concept in its style",
            Ask::Caption,
        ),
        (
            "name",
            "The concept's bare name: the style is the model's choice",
            Ask::Name,
        ),
    ])
}

pub fn weight_set() -> impl TypedValueParser<Value = WeightSet> {
    parser(&[
        (
            "ema",
            "The exponential moving average where there is one, else the plain weights",
            WeightSet::Ema,
        ),
        ("model", "The plain weights", WeightSet::Model),
    ])
}

pub fn split() -> impl TypedValueParser<Value = Split> {
    parser(&[
        ("train", "", Split::Train),
        ("val", "", Split::Val),
        ("test", "", Split::Test),
    ])
}

pub fn crop_rule() -> impl TypedValueParser<Value = CropRule> {
    parser(&[
        (
            "random",
            "The original's training rule: the largest square, at a random place near the \
             centre; resized to a random size up to 9/8 of the target; a random crop of it",
            CropRule::Random,
        ),
        (
            "center",
            "The original's validation rule: the short side resized to the target; the centre",
            CropRule::Center,
        ),
    ])
}

pub fn target() -> impl TypedValueParser<Value = Target> {
    parser(&[
        (
            "native",
            "One safetensors file that holds everything",
            Target::Native,
        ),
        (
            "official",
            "A PyTorch file for the original code; a code mapping goes to a file beside it",
            Target::Official,
        ),
        (
            "diffusers",
            "A folder for diffusers' VQDiffusionPipeline",
            Target::Diffusers,
        ),
    ])
}

pub fn stored_format() -> impl TypedValueParser<Value = DType> {
    parser(&[
        ("f32", "", DType::F32),
        ("f16", "", DType::F16),
        ("bf16", "", DType::BF16),
    ])
}

pub fn inception_resize() -> impl TypedValueParser<Value = InceptionResize> {
    parser(&[
        (
            "clean",
            "clean-fid: Pillow's bicubic filter on floats",
            InceptionResize::Clean,
        ),
        (
            "legacy_pytorch",
            "pytorch-fid: bilinear without antialiasing",
            InceptionResize::LegacyPytorch,
        ),
        (
            "adm",
            "ADM's evaluator, torch-fidelity, StyleGAN: TensorFlow 1's bilinear",
            InceptionResize::Adm,
        ),
    ])
}

pub fn dino_resize() -> impl TypedValueParser<Value = DinoResize> {
    parser(&[
        ("pil", "dgm-eval: Pillow's bicubic filter", DinoResize::Pil),
        (
            "clean",
            "dgm-eval's clean option: the same on floats",
            DinoResize::Clean,
        ),
        (
            "tf1",
            "torch-fidelity: TensorFlow 1's bilinear",
            DinoResize::Tf1,
        ),
    ])
}

pub fn position_table() -> impl TypedValueParser<Value = PositionTable> {
    parser(&[
        (
            "hub",
            "facebook's code, by (n + 0.1) / M",
            PositionTable::Hub,
        ),
        (
            "transformers",
            "transformers, by n / M",
            PositionTable::Transformers,
        ),
    ])
}

pub fn clip_crop() -> impl TypedValueParser<Value = ClipCrop> {
    parser(&[
        (
            "openai",
            "OpenAI, open_clip: scaled, then the centre",
            ClipCrop::Openai,
        ),
        (
            "transformers",
            "transformers: the centre, halves of a pixel rounded down",
            ClipCrop::Transformers,
        ),
        (
            "square_first",
            "The published CMMD: the centre square, then scaled",
            ClipCrop::SquareFirst,
        ),
    ])
}

pub fn activation() -> impl TypedValueParser<Value = ClipActivation> {
    parser(&[
        ("quick_gelu", "OpenAI's models", ClipActivation::QuickGelu),
        ("gelu", "open_clip's models", ClipActivation::Gelu),
    ])
}

pub fn reverse_rule() -> impl TypedValueParser<Value = ReverseRule> {
    parser(&[
        ("exact", "The paper's process", ReverseRule::Exact),
        ("official", "The official code's", ReverseRule::Official),
        ("diffusers", "diffusers'", ReverseRule::Diffusers),
    ])
}

pub fn ranking() -> impl TypedValueParser<Value = Ranking> {
    parser(&[
        (
            "clip",
            "The cosine of picture and prompt in CLIP",
            Ranking::Clip,
        ),
        (
            "classifier",
            "The probability of the class by a ResNet",
            Ranking::Classifier,
        ),
    ])
}

pub fn pillow() -> impl TypedValueParser<Value = Pillow> {
    parser(&[
        ("13", "Release 13 and later", Pillow::Since13),
        ("12", "Up to release 12", Pillow::UpTo12),
    ])
}
