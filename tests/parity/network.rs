//! The denoiser: hidden states and logits with one time per sample, and every faster
//! way of asking it, against the same recorded logits.

use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::official::DENOISER;
use vqdiffusion::checkpoint::{Checkpoint, Loader, WeightSet};
use vqdiffusion::pipeline::Pipeline;
use vqdiffusion::torch::Params;
use vqdiffusion::transformer::Denoiser;

use crate::case::{rows_at, Case};
use crate::condition::{self, with_null};
use crate::model::{load, open};

const LOGITS: &str = "expected.logits";

/// Inputs of one recorded network evaluation.
struct Inputs {
    x_t: Tensor, // [B, L]
    t: Tensor,   // [B]
    y: Tensor,   // [B, …]
}

pub fn run(case: &mut Case, checkpoint: &Checkpoint, pipeline: &Pipeline) {
    let inputs = Inputs {
        x_t: case.input("input.x_t"),
        t: case.input("input.t"),
        y: condition::recorded(case),
    };
    let prepared = pipeline.denoiser();
    let logits = observed(case, prepared, &inputs, "prepared");
    case.check(LOGITS, &logits.transpose(1, 2));

    // The weights as they are trained: nothing joined, packed or tabulated.
    let loader = Loader::new(&checkpoint.state, &checkpoint.path);
    let root = Params::new(&loader, Device::Cpu, Kind::Float);
    let plain = Denoiser::new(&root.at(DENOISER), prepared.config());
    let logits = observed(case, &plain, &inputs, "not prepared");
    also_rows(case, "not prepared", &logits);
    fast_paths(case, "prepared", prepared, pipeline, &inputs);
    fast_paths(case, "not prepared", &plain, pipeline, &inputs);

    let name = "expected.logits_without_ema";
    if case.has(name) {
        let pipeline = load(&open(case, WeightSet::Model));
        let condition = pipeline.denoiser().condition(&inputs.y);
        let logits = pipeline
            .denoiser()
            .forward(&inputs.x_t, &inputs.t, &condition, None);
        case.check(name, &logits.transpose(1, 2));
    }
}

/// Compares the hidden states; returns the logits `[B, L, K]`.
fn observed(case: &mut Case, denoiser: &Denoiser, inputs: &Inputs, how: &str) -> Tensor {
    let condition = denoiser.condition(&inputs.y);
    let mut hidden = Vec::new();
    let logits =
        denoiser.forward_observed(&inputs.x_t, &inputs.t, &condition, None, |x: &Tensor| {
            hidden.push(x.copy());
        });
    for (i, x) in hidden.iter().enumerate() {
        let name = match i.checked_sub(1) {
            None => "expected.content_emb".to_string(),
            Some(block) => format!("expected.block{block}"),
        };
        if let Some(expected) = case.get(&name) {
            case.mark(&name);
            case.also(&name, how, x, &expected);
        }
    }
    logits
}

/// `logits` `[B, L, K]` of all samples against the recorded ones.
fn also_rows(case: &mut Case, how: &str, logits: &Tensor) {
    let expected = case.input(LOGITS);
    case.also(LOGITS, how, &logits.transpose(1, 2), &expected);
}

/// Subset of positions `[rows, A]`: not sorted, another one for every row, the last
/// entry a repetition of the first as in a padded row.
fn some_positions(rows: i64, tokens: i64) -> Tensor {
    let active = (tokens / 3).max(1);
    let values: Vec<i64> = (0..rows)
        .flat_map(|row| {
            let at = move |i: i64| (5 * row + 7 + i * (tokens / 2 + 1)) % tokens;
            (0..active).map(at).chain([at(0)])
        })
        .collect();
    Tensor::from_slice(&values).view([rows, active + 1])
}

fn fast_paths(case: &mut Case, state: &str, denoiser: &Denoiser, pipeline: &Pipeline, i: &Inputs) {
    let expected = case.input(LOGITS).transpose(1, 2); // [B, L, K]
    let (batch, tokens) = (i.x_t.size()[0], i.x_t.size()[1]);
    let null = condition::null(pipeline);
    let mut compare = |how: &str, ours: &Tensor, expected: &Tensor| {
        case.also(LOGITS, &format!("{state}, {how}"), ours, expected);
    };

    // All samples at once.
    let condition = denoiser.condition(&i.y);
    let at = some_positions(batch, tokens);
    let logits = denoiser.forward(&i.x_t, &i.t, &condition, Some(&at));
    let wanted = rows_at(&expected, &at);
    compare("positions", &logits, &wanted);
    if let Some(null) = &null {
        let condition = denoiser.condition(&with_null(&i.y, null));
        let logits = denoiser.forward(&i.x_t, &i.t, &condition, None);
        compare("guidance batch", &logits.narrow(0, 0, batch), &expected);
        let logits = denoiser.forward(&i.x_t, &i.t, &condition, Some(&at));
        let logits = logits.narrow(0, 0, batch);
        compare("guidance batch, positions", &logits, &wanted);
    }

    // One sample, its time shared by the batch.
    for row in 0..batch {
        let (x, t) = (i.x_t.narrow(0, row, 1), i.t.narrow(0, row, 1));
        let y = i.y.narrow(0, row, 1);
        let expected = expected.narrow(0, row, 1);
        let at = at.narrow(0, row, 1);
        let wanted = rows_at(&expected, &at);
        let ask = |copies: i64, null: Option<&Tensor>, at: Option<&Tensor>| {
            let repeat = |x: &Tensor| {
                let mut times = vec![1; x.dim()];
                times[0] = copies;
                x.repeat(times)
            };
            let y = repeat(&y);
            let condition = denoiser.condition(&match null {
                Some(null) => with_null(&y, null),
                None => y,
            });
            denoiser
                .forward(&repeat(&x), &t, &condition, at.map(repeat).as_ref())
                .split(1, 0)
        };
        for null in [None, null.as_ref()] {
            for copies in [1, 2] {
                for (at, expected) in [(None, &expected), (Some(&at), &wanted)] {
                    let how = format!(
                        "sample {row}, one time for {copies}{}{}",
                        if null.is_some() {
                            ", guidance batch"
                        } else {
                            ""
                        },
                        if at.is_some() { ", positions" } else { "" },
                    );
                    for logits in ask(copies, null, at).iter().take(copies as usize) {
                        compare(&how, logits, expected);
                    }
                }
            }
        }
    }
}
