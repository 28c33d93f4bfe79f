//! Values of the library's options that are chosen by name.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use crate::checkpoint::pytorch::DType;
use crate::checkpoint::WeightSet;
use crate::data::{CropRule, Split};
use crate::pipeline::convert::Target;
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
