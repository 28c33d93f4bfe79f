//! What the log says of the diffusion model's training.

use serde::{Deserialize, Serialize};

use crate::codec::usage::perplexity;
use crate::train::engine::{Line, RunState};

/// Means over the steps since the last line that were not skipped; `None` where all were.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    pub step: u64,
    /// Samples seen in the run.
    pub samples: u64,
    /// Nats per token, as minimised: an estimate of the bound with the auxiliary term.
    pub loss: Option<f64>,
    /// Main term in nats per token by quartile of t, where a time of it was drawn.
    pub loss_by_quartile: [Option<f64>; 4],
    /// Share of tokens whose likeliest code is the right one.
    pub token_accuracy: Option<f64>,
    /// How many of the K codes the samples' tokens used.
    pub distinct_codes: u64,
    /// exp of the entropy of these codes.
    pub code_perplexity: Option<f64>,
    pub learning_rate: f64,
    pub gradient_norm: Option<f64>,
    pub images_per_second: f64,
    /// Share of the device's measured matrix-product rate that training uses.
    pub model_flops_utilization: f64,
    /// Steps skipped in the run.
    pub skipped: u64,
}

impl Line for LogLine {
    fn scalars(&self) -> Vec<(&str, f64)> {
        const QUARTILES: [&str; 4] = [
            "train/loss_quartile_1",
            "train/loss_quartile_2",
            "train/loss_quartile_3",
            "train/loss_quartile_4",
        ];
        let numbers = [
            ("train/loss", self.loss),
            ("train/token_accuracy", self.token_accuracy),
            ("train/distinct_codes", Some(self.distinct_codes as f64)),
            ("train/code_perplexity", self.code_perplexity),
            ("train/learning_rate", Some(self.learning_rate)),
            ("train/gradient_norm", self.gradient_norm),
            ("speed/images_per_second", Some(self.images_per_second)),
            (
                "speed/model_flops_utilization",
                Some(self.model_flops_utilization),
            ),
        ];
        let quartiles = QUARTILES.into_iter().zip(self.loss_by_quartile);
        let all = numbers.into_iter().chain(quartiles);
        all.filter_map(|(tag, value)| Some((tag, value?))).collect()
    }
}

/// The roof that speed is measured against.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Speed {
    /// Floating-point operations of training on one image.
    pub flops_per_image: f64,
    /// Such operations per second in a large matrix product on this device.
    pub peak: f64,
}

/// What happened in a step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Nats per token, weighted as they are minimised.
    pub loss: f64,
    /// Times of the samples.
    pub times: Vec<i64>,
    /// Main term of each sample, nats over all its tokens.
    pub main: Vec<f64>,
    /// Share of tokens whose likeliest code is the right one.
    pub accuracy: f64,
    /// How often each of the K codes occurs in the samples.
    pub usage: Vec<u64>,
}

/// Sums of the steps since the last line that were not skipped.
#[derive(Default, Serialize, Deserialize)]
pub struct Sums {
    steps: u64,
    loss: f64,
    accuracy: f64,
    norm: f64,
    /// Sum and number of main terms, in nats per token, by quartile of t.
    quartiles: [(f64, u64); 4],
    /// How often each code occurred.
    usage: Vec<u64>,
}

impl Sums {
    /// Adds a step over images of `tokens` tokens at times below `timesteps`, whose gradient
    /// had the L2 norm `norm`.
    pub fn add(&mut self, report: &StepReport, norm: f64, tokens: i64, timesteps: usize) {
        self.steps += 1;
        self.loss += report.loss;
        self.accuracy += report.accuracy;
        self.norm += norm;
        self.usage.resize(report.usage.len(), 0);
        for (sum, count) in self.usage.iter_mut().zip(&report.usage) {
            *sum += count;
        }
        for (&t, &main) in report.times.iter().zip(&report.main) {
            let (sum, count) = &mut self.quartiles[t as usize * 4 / timesteps];
            *sum += main / tokens as f64;
            *count += 1;
        }
    }

    /// The line of the log at `state`, whose last step had the learning rate `rate`.
    pub fn line(
        &self,
        state: &RunState,
        rate: f64,
        images_per_second: f64,
        speed: &Speed,
    ) -> LogLine {
        let mean = |sum: f64| (self.steps > 0).then(|| sum / self.steps as f64);
        LogLine {
            step: state.step,
            samples: state.samples,
            loss: mean(self.loss),
            loss_by_quartile: self
                .quartiles
                .map(|(sum, count)| (count > 0).then(|| sum / count as f64)),
            token_accuracy: mean(self.accuracy),
            distinct_codes: self.usage.iter().filter(|&&count| count > 0).count() as u64,
            code_perplexity: (self.steps > 0).then(|| perplexity(&self.usage)),
            learning_rate: rate,
            gradient_norm: mean(self.norm),
            images_per_second,
            model_flops_utilization: images_per_second * speed.flops_per_image / speed.peak,
            skipped: state.skipped,
        }
    }
}
