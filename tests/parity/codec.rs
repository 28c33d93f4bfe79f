//! Pictures to tokens and back.

use tch::{Kind, Tensor};
use vqdiffusion::checkpoint::official::CODE_MAPPING;
use vqdiffusion::checkpoint::Checkpoint;
use vqdiffusion::codec::image_codec::{to_bytes, CodeMapping};
use vqdiffusion::codec::Rounding;
use vqdiffusion::pipeline::Pipeline;

use crate::case::Case;

pub fn run(case: &mut Case, checkpoint: &Checkpoint, pipeline: &Pipeline) {
    let codec = pipeline.codec();
    let image = case.input("input.image");
    let latent = codec.encode_latent(&image); // [B, E, h, w]
    case.check("expected.codec.prequant", &latent);
    let scores = codec.code_scores(&latent); // [B, L, N]
    let (height, width) = (latent.size()[2], latent.size()[3]);
    let map = scores.transpose(1, 2).unflatten(2, [height, width]);
    case.check("expected.codec.code_logits", &map);
    case.check("expected.codec.code_distance", &-scores.flatten(0, 1));
    let full = scores.argmax(-1, false);
    case.check("expected.codec.tokens_no_noise_full", &full);
    let tokens = codec.encode(&image);
    case.check("expected.codec.tokens_no_noise", &tokens);
    case.check("expected.codec.tokens", &tokens);
    if let Some(noise) = case.get("input.codec.gumbel_exponential") {
        let noise = noise.flatten(2, 3).transpose(1, 2); // [B, L, N]
        let drawn = codec.encode_sampled(&image, &noise);
        case.check("expected.codec.tokens_with_noise", &drawn);
    }
    if let Some(entry) = checkpoint.state.get(CODE_MAPPING) {
        let full_to_reduced = entry.read().unwrap_or_else(|e| panic!("{e}"));
        case.check("expected.codec.full_to_quantize", &full_to_reduced);
        let mapping = CodeMapping::new(&full_to_reduced, pipeline.config().denoiser.codes)
            .unwrap_or_else(|e| panic!("{e}"));
        case.check("expected.codec.quantize_to_full", mapping.reduced_to_full());
    }

    let tokens = case.input("input.decode_tokens");
    let grid = pipeline.config().denoiser.grid;
    let raw = codec.decode_raw(&tokens, grid);
    case.check("expected.codec.decoder_raw", &raw);
    case.check("expected.codec.decoded", &codec.decode(&tokens, grid));
    let decoded = pipeline.decode(&tokens); // one after the other
    let name = "expected.codec.decoded";
    if let Some(expected) = case.get(name) {
        case.also(name, "one picture at a time", &decoded, &expected);
    }
    let name = "expected.codec.decoded_u8";
    if let Some(expected) = case.get(name) {
        case.mark(name);
        bytes(case, name, &decoded, &expected);
    }
    for i in 0..decoded.size()[0] {
        let file = case.path.join(format!("decoded_{i}.png"));
        if file.is_file() {
            let expected = read_png(&file);
            bytes(
                case,
                &format!("decoded_{i}.png"),
                &decoded.narrow(0, i, 1),
                &expected,
            );
        }
    }
}

/// Channels `[1, H, W, 3]` of a PNG file.
fn read_png(file: &std::path::Path) -> Tensor {
    let picture = image::open(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let picture = picture.to_rgb8();
    Tensor::from_slice(picture.as_raw())
        .view([
            1,
            i64::from(picture.height()),
            i64::from(picture.width()),
            3,
        ])
        .to_kind(Kind::Int64)
}

/// Truncated bytes of `decoded` `[B, 3, H, W]` against `[B, H, W, 3]`. They may differ
/// by one where the float is within its own tolerance of an integer.
fn bytes(case: &mut Case, name: &str, decoded: &Tensor, expected: &Tensor) {
    let atol = case.atol("expected.codec.decoded");
    let channels_last = |x: &Tensor| x.permute([0, 2, 3, 1]).contiguous();
    let ours = channels_last(&to_bytes(decoded, Rounding::Truncate)).to_kind(Kind::Int64);
    if ours.size() != expected.size() {
        let (ours, expected) = (ours.size(), expected.size());
        return case.fail(format!("{name}: shape {ours:?}, expected {expected:?}"));
    }
    let float = channels_last(decoded);
    let near_integer = (&float - float.round()).abs().le(atol);
    let difference = (ours - expected).abs();
    let by_one = difference.le(1).logical_and(&near_integer);
    let wrong = difference.ne(0).logical_and(&by_one.logical_not());
    let count = wrong.sum(Kind::Int64).int64_value(&[]);
    if count > 0 {
        let largest = difference.max().int64_value(&[]);
        case.fail(format!(
            "{name}: {count} of {} bytes differ, at most by {largest}",
            wrong.numel()
        ));
    }
}
