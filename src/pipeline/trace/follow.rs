//! A run followed again, step by step.

use serde::Serialize;
use tch::{Kind, Tensor};

use crate::diffusion::sampler::{Query, Reuse};
use crate::pipeline::load::Pipeline;
use crate::pipeline::maker::Maker;
use crate::pipeline::subject::{ConditionError, Request};
use crate::torch::host::values;

/// One step of a run.
#[derive(Clone, Debug, Serialize)]
pub struct TracedStep {
    /// Time index that the network was asked about.
    pub time: i64,
    /// Tokens after the step, row-major; the number of codes stands for the mask.
    pub tokens: Vec<i64>,
    /// Positions whose token the step changed.
    pub changed: Vec<usize>,
    /// Entropy in nats of the p(x̂_0) that the step drew from, at every position; of
    /// the first evaluation where a step has several.
    pub entropy: Vec<f32>,
}

/// Where the image looked for one word.
#[derive(Clone, Debug, Serialize)]
pub struct TracedWord {
    /// The word; empty for the padding behind the text.
    pub text: String,
    /// Its text positions, from the first to before the second.
    pub positions: [usize; 2],
    /// Share of each image token's cross-attention that went to the word: mean over
    /// steps, blocks and heads. Over all words it sums to 1.
    pub attention: Vec<f32>,
}

/// The trace of one picture.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// Token grid as rows, columns.
    pub grid: [i64; 2],
    /// Pixels of a token's side in the picture.
    #[serde(skip)]
    pub cell: usize,
    /// K, and the mask token.
    pub codes: i64,
    pub steps: Vec<TracedStep>,
    /// Empty for models that read no text.
    pub words: Vec<TracedWord>,
}

impl Trace {
    /// Follows the run of `request` by `plan` again through its `states`, int64 `[1, L]` after
    /// each step; `observe` is called for each.
    ///
    /// # Errors
    ///
    /// A request that the model cannot show.
    pub fn new(
        maker: &Maker,
        request: &Request,
        states: &[Tensor],
        observe: &mut dyn FnMut(),
    ) -> Result<Self, ConditionError> {
        let _no_grad = tch::no_grad_guard();
        let (pipeline, plan, edits) = (maker.pipeline(), maker.plan(), maker.edits());
        let device = pipeline.device();
        let subject = std::slice::from_ref(&request.subject);
        let condition = pipeline.edited_condition(subject, plan, edits)?;
        let plain = pipeline.condition(subject, false)?;
        let mut x = pipeline.start(plan, &[request.seed], edits).tokens; // [1, L]
        let mut steps = Vec::new();
        let mut attention: Option<Tensor> = None; // [L, S], summed over steps
        for (i, (step, next)) in plan.steps().iter().zip(states).enumerate() {
            let t = Tensor::from_slice(&[step.network]).to_device(device);
            let query = Query {
                x_t: &x,
                t: &t,
                positions: None,
                null: plan.asks_null(i),
                reuse: Reuse::Nothing,
            };
            let prediction = pipeline.predict(query, &condition);
            let next = next.to_device(device);
            steps.push(TracedStep {
                time: step.network,
                tokens: values(&next),
                changed: positions(&next.ne_tensor(&x)),
                entropy: values(&plan.entropy(&prediction)),
            });
            if let Some(maps) = pipeline.denoiser().text_attention(&x, &t, &plain) {
                let mean = maps
                    .mean_dim([0i64].as_slice(), false, Kind::Float)
                    .squeeze_dim(0);
                attention = Some(attention.map_or(mean.shallow_clone(), |sum| sum + mean));
            }
            x = next;
            observe();
        }
        let words = match attention {
            Some(sum) => words(pipeline, request, &(sum / steps.len() as f64))?,
            None => Vec::new(),
        };
        Ok(Trace {
            grid: pipeline.config().denoiser.grid,
            cell: pipeline.config().codec.factor() as usize,
            codes: pipeline.config().denoiser.codes,
            steps,
            words,
        })
    }
}

/// The attention of every word and of the padding; `attention` `[L, S]`.
fn words(
    pipeline: &Pipeline,
    request: &Request,
    attention: &Tensor,
) -> Result<Vec<TracedWord>, ConditionError> {
    let positions = attention.size()[1] as usize;
    let mut words = pipeline.conditioner().words(&request.subject)?;
    let padding = words.last().map_or(0, |(_, range)| range.end);
    if padding < positions {
        words.push((String::new(), padding..positions));
    }
    Ok(words
        .into_iter()
        .map(|(text, range)| {
            let share = attention
                .narrow(1, range.start as i64, range.len() as i64)
                .sum_dim_intlist(1, false, Kind::Float); // [L]
            TracedWord {
                text,
                positions: [range.start, range.end],
                attention: values(&share),
            }
        })
        .collect())
}

/// Where `x` bool `[1, L]` is true.
fn positions(x: &Tensor) -> Vec<usize> {
    let flags: Vec<i64> = values(x);
    (0..flags.len()).filter(|&i| flags[i] != 0).collect()
}
