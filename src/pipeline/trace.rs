//! What a run looked like from inside: every step's tokens, the entropy of its
//! predictions, and where the words of the prompt drew attention. All of it is
//! computed after the run, from the states it went through.

use serde::Serialize;
use tch::{Kind, Tensor};

use super::load::Pipeline;
use super::maker::Maker;
use super::subject::{ConditionError, Request};
use crate::diffusion::sampler::Query;
use crate::picture::Picture;

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
            };
            let prediction = pipeline.predict(query, &condition);
            let next = next.to_device(device);
            steps.push(TracedStep {
                time: step.network,
                tokens: integers(&next),
                changed: positions(&next.ne_tensor(&x)),
                entropy: floats(&plan.entropy(&prediction)),
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
            codes: pipeline.config().denoiser.codes,
            steps,
            words,
        })
    }

    /// Step `i`'s tokens, each code in a colour of its own and the mask in grey, with
    /// cells of `side` pixels.
    pub fn token_map(&self, i: usize, side: usize) -> Picture {
        let tokens = &self.steps[i].tokens;
        self.cells(side, |cell| code_colour(tokens[cell], self.codes))
    }

    /// Step `i`'s entropy, black for 0 to white for ln K.
    pub fn entropy_map(&self, i: usize, side: usize) -> Picture {
        let (entropy, most) = (&self.steps[i].entropy, (self.codes as f32).ln());
        self.cells(side, |cell| grey(entropy[cell] / most))
    }

    /// The tokens that step `i` changed, white on black.
    pub fn change_map(&self, i: usize, side: usize) -> Picture {
        let mut changed = vec![false; self.steps[i].tokens.len()];
        for &position in &self.steps[i].changed {
            changed[position] = true;
        }
        self.cells(side, |cell| grey(f32::from(u8::from(changed[cell]))))
    }

    /// `picture` lit where the image looked for word `i`: full light at the most.
    pub fn attention_map(&self, i: usize, side: usize, picture: &Picture) -> Picture {
        let attention = &self.words[i].attention;
        let most = attention.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let light = self.cells(side, |cell| grey(0.1 + 0.9 * attention[cell] / most));
        let lit = picture.rgb.iter().zip(&light.rgb);
        Picture {
            rgb: lit
                .map(|(&c, &l)| (u16::from(c) * u16::from(l) / 255) as u8)
                .collect(),
            ..light
        }
    }

    /// A picture of the token grid in cells of `side` pixels.
    fn cells(&self, side: usize, colour: impl Fn(usize) -> [u8; 3]) -> Picture {
        let [rows, columns] = self.grid.map(|side| side as usize);
        let row = |r: usize| -> Vec<u8> {
            (0..columns)
                .flat_map(|c| std::iter::repeat_n(colour(r * columns + c), side).flatten())
                .collect()
        };
        Picture {
            width: (columns * side) as u32,
            height: (rows * side) as u32,
            rgb: (0..rows)
                .flat_map(|r| std::iter::repeat_n(row(r), side).flatten())
                .collect(),
        }
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
                attention: floats(&share),
            }
        })
        .collect())
}

/// A colour for each code, far apart for neighbours; mid grey for the mask.
fn code_colour(token: i64, codes: i64) -> [u8; 3] {
    if token >= codes {
        return [128; 3];
    }
    // Steps of the golden ratio around the circle of hues, in three lightnesses.
    let hue = (token as f64 * 0.618_033_988_749_895).fract() * 6.0;
    let light = [255.0, 190.0, 225.0][token as usize % 3];
    [5.0, 3.0, 1.0].map(|shift: f64| {
        let k = (shift + hue) % 6.0;
        (light * (1.0 - 0.75 * k.min(4.0 - k).clamp(0.0, 1.0))) as u8
    })
}

/// Black for 0 to white for 1.
fn grey(value: f32) -> [u8; 3] {
    [(value.clamp(0.0, 1.0) * 255.0).round() as u8; 3]
}

fn integers(x: &Tensor) -> Vec<i64> {
    let mut values = vec![0; x.numel()];
    x.to_device(tch::Device::Cpu)
        .to_kind(Kind::Int64)
        .contiguous()
        .copy_data(&mut values, x.numel());
    values
}

fn floats(x: &Tensor) -> Vec<f32> {
    let mut values = vec![0.0; x.numel()];
    x.to_device(tch::Device::Cpu)
        .to_kind(Kind::Float)
        .contiguous()
        .copy_data(&mut values, x.numel());
    values
}

/// Where `x` bool `[1, L]` is true.
fn positions(x: &Tensor) -> Vec<usize> {
    let flags = integers(x);
    (0..flags.len()).filter(|&i| flags[i] != 0).collect()
}
