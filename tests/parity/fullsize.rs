//! Decoder and network of full size, their weights made by a formula.

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use vqdiffusion::codec::{CodecConfig, ImageCodec, QuantizerKind};
use vqdiffusion::torch::Params;
use vqdiffusion::transformer::config::{
    Activation, AdaptiveNorm, DenoiserConfig, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use vqdiffusion::transformer::{Conditioning, Denoiser};

use crate::case::{rows_at, Case};
use crate::formula::{FormulaWeights, Numbers};

pub fn run(case: &mut Case) {
    case.section("formula", formula_check);
    case.section("decoder", decoder);
    case.section("transformer", transformer);
}

fn salt(case: &Case) -> String {
    case.meta["salt"].as_str().unwrap_or_default().to_string()
}

fn formula_check(case: &mut Case) {
    let check = case.meta["check"].clone();
    let numbers = Numbers::new(&salt(case), check["name"].as_str().unwrap_or_default());
    let given = check["first_four_s"].as_array().into_iter().flatten();
    for (i, s) in given.filter_map(Value::as_f64).enumerate() {
        if numbers.at(i) != s {
            case.fail(format!(
                "formula: s[{i}] is {}, expected {s}",
                numbers.at(i)
            ));
        }
    }
}

/// The side of a square grid of `tokens`.
fn side(tokens: i64) -> i64 {
    let side = (tokens as f64).sqrt().round() as i64;
    assert_eq!(side * side, tokens, "the token grid is not square");
    side
}

/// Applies the first `name[…]` of `meaning`, a numpy slice expression, to `x`.
fn slice(x: &Tensor, meaning: &str, name: &str) -> Tensor {
    let inside = meaning
        .split_once(&format!("{name}["))
        .and_then(|(_, rest)| rest.split_once(']'))
        .map(|(inside, _)| inside)
        .unwrap_or_else(|| panic!("no {name}[…] in {meaning:?}"));
    let number = |text: &str| text.trim().parse::<i64>().ok();
    let (mut x, mut dim) = (x.shallow_clone(), 0);
    for part in inside.split(',') {
        let bounds: Vec<&str> = part.split(':').collect();
        let bound = |i: usize| bounds.get(i).and_then(|text| number(text));
        if bounds.len() == 1 {
            x = x.select(
                dim,
                bound(0).unwrap_or_else(|| panic!("index in {meaning:?}")),
            );
        } else {
            x = x.slice(dim, bound(0), bound(1), bound(2).unwrap_or(1));
            dim += 1;
        }
    }
    x
}

fn decoder(case: &mut Case) {
    let weights = FormulaWeights::new(&salt(case), &case.meta["decoder"]["parameters"]);
    let tokens = case.input("input.decoder.tokens").view([1, -1]);
    let grid = side(tokens.size()[1]);
    let codec = ImageCodec::new(
        &Params::new(&weights, Device::Cpu, Kind::Float),
        &codec_config(&weights, grid),
        None,
    );
    for problem in weights.problems() {
        case.fail(format!("decoder: {problem}"));
    }
    let output = codec.decode_raw(&tokens, [grid, grid]); // [1, 3, H, W]
    let channels = output.get(0).flatten(1, 2);
    let mean = channels.mean_dim(1, false, None::<Kind>);
    case.check("expected.decoder.mean", &mean);
    let std = channels.std_dim(1, true, false);
    case.check("expected.decoder.std", &std);
    for name in ["expected.decoder.strided", "expected.decoder.corner"] {
        if case.has(name) {
            let ours = slice(&output, case.meaning(name), "output");
            case.check(name, &ours);
        }
    }
}

fn codec_config(weights: &FormulaWeights, grid: i64) -> CodecConfig {
    let shape = |name: &str| weights.shape(name).unwrap_or_else(|| panic!("no {name}"));
    let levels = weights.count(|l| format!("decoder.up.{l}.block.0.conv1.weight"));
    let channels = shape("decoder.up.0.block.0.conv1.weight")[0];
    let resolution = grid << (levels - 1);
    let (quantizer, table) = match weights.shape("quantize.embed.weight") {
        Some(shape) => (QuantizerKind::Gumbel, shape),
        None => (QuantizerKind::Ema, shape("quantize.embedding")),
    };
    CodecConfig {
        resolution,
        channels,
        multipliers: (0..levels)
            .map(|l| shape(&format!("decoder.up.{l}.block.0.conv1.weight"))[0] / channels)
            .collect(),
        residual_blocks: weights.count(|n| format!("decoder.up.0.block.{n}.conv1.weight")) - 1,
        attention_resolutions: (0..levels)
            .filter(|l| {
                weights
                    .shape(&format!("decoder.up.{l}.attn.0.q.weight"))
                    .is_some()
            })
            .map(|l| resolution >> l)
            .collect(),
        latent_channels: shape("post_quant_conv.weight")[0],
        embedding_width: table[1],
        codebook: table[0],
        quantizer,
        norm_groups: 32,
    }
}

/// The whole number before `word` in `text`.
fn number_before(text: &str, word: &str) -> Option<i64> {
    let (before, _) = text.split_once(word)?;
    before.split_whitespace().last()?.parse().ok()
}

/// `[1, S, C]` of the rule's "reshaped to 1 x S x C".
fn text_shape(rule: &str) -> Option<[i64; 3]> {
    let (_, rest) = rule.split_once("reshaped to ")?;
    let (shape, _) = rest.split_once(',')?;
    let numbers: Vec<i64> = shape
        .split('x')
        .filter_map(|n| n.trim().parse().ok())
        .collect();
    numbers.try_into().ok()
}

fn denoiser_config(
    weights: &FormulaWeights,
    about: &str,
    tokens: i64,
    text: i64,
) -> DenoiserConfig {
    let shape = |name: &str| {
        let name = format!("{PREFIX}.{name}");
        weights.shape(&name).unwrap_or_else(|| panic!("no {name}"))
    };
    let listed = |name: &str| weights.shape(&format!("{PREFIX}.{name}")).is_some();
    let embedding = shape("content_emb.emb.weight");
    let width = embedding[1];
    let parameters = listed("content_emb.height_emb");
    let rows = |axis: &str| match parameters {
        true => shape(&format!("content_emb.{axis}_emb"))[1],
        false => shape(&format!("content_emb.{axis}_emb.weight"))[0],
    };
    let grid = side(tokens);
    let said = |word: &str| {
        about
            .split(|c: char| !c.is_alphanumeric())
            .any(|w| w == word)
    };
    let conv = listed("blocks.0.mlp.conv1.weight");
    let hidden = match conv {
        true => shape("blocks.0.mlp.conv1.weight")[0],
        false => shape("blocks.0.mlp.0.weight")[0],
    };
    DenoiserConfig {
        layers: weights.count(|i| format!("{PREFIX}.blocks.{i}.attn1.query.weight")),
        width,
        heads: number_before(about, "heads").unwrap_or_else(|| panic!("no heads in {about:?}")),
        codes: embedding[0] - 1,
        grid: [grid, grid],
        position_table: [rows("height"), rows("width")],
        position_weights: match parameters {
            true => PositionWeights::Parameter,
            false => PositionWeights::Embedding,
        },
        timesteps: match listed("blocks.0.ln1.emb.weight") {
            true => shape("blocks.0.ln1.emb.weight")[0],
            false => number_before(about, "steps").unwrap_or(100),
        },
        timestep_embedding: match listed("blocks.0.ln1.emb.weight") {
            true => IndexEmbedding::Table,
            false => IndexEmbedding::Sinusoid,
        },
        timestep_norm: match about.contains("adainsnorm") {
            true => AdaptiveNorm::Instance,
            false => AdaptiveNorm::Layer,
        },
        feed_forward: match conv {
            true => FeedForwardKind::Conv,
            false => FeedForwardKind::Fc,
        },
        activation: match said("GELU") {
            true => Activation::Gelu,
            false => Activation::Gelu2,
        },
        expansion: hidden / width,
        condition: Conditioning::Text {
            positions: text,
            width: shape("blocks.0.attn2.key.weight")[1],
        },
    }
}

const PREFIX: &str = "transformer.transformer";

fn transformer(case: &mut Case) {
    let about = case.meta["transformer"]["config"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    let weights = FormulaWeights::new(&salt(case), &case.meta["transformer"]["parameters"]);
    let x = case.input("input.transformer.tokens").view([1, -1]);
    let t = case.input("input.transformer.t").view([1]);
    let text = condition_text(case);
    let config = denoiser_config(&weights, &about, x.size()[1], text.size()[1]);
    let root = Params::new(&weights, Device::Cpu, Kind::Float);
    let mut denoiser = Denoiser::new(&root.at(PREFIX), &config);
    for problem in weights.problems() {
        case.fail(format!("transformer: {problem}"));
    }
    let positions = case
        .get("input.transformer.positions")
        .map(|p| p.view([1, -1]));

    for prepared in [false, true] {
        let how = if prepared { "prepared" } else { "not prepared" };
        if prepared {
            denoiser.prepare();
        }
        let condition = denoiser.condition(&text);
        let mut hidden = Vec::new();
        let logits = denoiser.forward_observed(&x, &t, &condition, None, |x: &Tensor| {
            hidden.push(x.copy());
        });
        outputs(case, how, &hidden[1..], &logits, positions.as_ref());
        if let (true, Some(at)) = (prepared, &positions) {
            let logits = denoiser.forward(&x, &t, &condition, Some(at));
            at_positions(case, "prepared, positions", &logits);
            // With the same text as null text.
            let condition = denoiser.condition(&text.repeat([2, 1, 1]));
            let logits = denoiser.forward(&x, &t, &condition, Some(at));
            for logits in logits.split(1, 0) {
                at_positions(case, "prepared, guidance batch, positions", &logits);
            }
        }
    }
}

/// s of 'input.cond_emb', each row divided by its L2 norm in f64, then f32.
fn condition_text(case: &Case) -> Tensor {
    let rule = case.meta["cond_emb"].as_str().unwrap_or_default();
    let shape = text_shape(rule).unwrap_or_else(|| panic!("no shape in {rule:?}"));
    let numbers = Numbers::new(&salt(case), "input.cond_emb");
    let count = shape.iter().product::<i64>() as usize;
    let values: Vec<f64> = (0..count).map(|i| numbers.at(i)).collect();
    let text = Tensor::from_slice(&values).view(shape);
    let norms = text.square().sum_dim_intlist(-1, true, Kind::Double).sqrt();
    (text / norms).to_kind(Kind::Float)
}

fn compare(case: &mut Case, name: &str, how: &str, ours: &Tensor) {
    if let Some(expected) = case.get(name) {
        case.mark(name);
        case.also(name, how, ours, &expected);
    }
}

fn at_positions(case: &mut Case, how: &str, logits: &Tensor) {
    compare(case, "expected.transformer.logits_at", how, &logits.get(0));
}

fn outputs(case: &mut Case, how: &str, hidden: &[Tensor], logits: &Tensor, at: Option<&Tensor>) {
    let statistics: Vec<Tensor> = hidden
        .iter()
        .map(|x| {
            Tensor::stack(
                &[x.mean(Kind::Double), x.to_kind(Kind::Double).std(true)],
                0,
            )
        })
        .collect();
    let name = "expected.transformer.block_mean_std";
    compare(case, name, how, &Tensor::stack(&statistics, 0));
    let name = "expected.transformer.block_samples";
    if case.has(name) {
        let samples: Vec<Tensor> = hidden
            .iter()
            .map(|x| slice(x, case.meaning(name), "hidden"))
            .collect();
        compare(case, name, how, &Tensor::stack(&samples, 0));
    }
    let name = "expected.transformer.logits_strided";
    if case.has(name) {
        let classes = logits.get(0).transpose(0, 1); // [K, L]
        let ours = slice(&classes, case.meaning(name), "logits");
        compare(case, name, how, &ours);
    }
    if let Some(at) = at {
        at_positions(case, how, &rows_at(logits, at));
    }
}
