//! What the log says of a codec's training.

use serde::{Deserialize, Serialize};

use super::step::CodecReport;
use crate::codec::usage::perplexity;
use crate::train::engine::{Line, RunState};

/// A line of the log: means over the steps since the last one.
#[derive(Clone, Debug, Serialize)]
pub struct CodecLine {
    /// Steps made.
    pub step: u64,
    /// The loss's main term.
    pub reconstruction: f64,
    pub commitment: f64,
    pub learning_rate: f64,
    pub gradient_norm: f64,
    /// Share of the codebook that occurs.
    pub codes_used: f64,
    /// exp of the entropy of the codes.
    pub perplexity: f64,
    /// Entries moved.
    pub revived: i64,
    pub images_per_second: f64,
}

impl Line for CodecLine {
    fn scalars(&self) -> Vec<(&str, f64)> {
        vec![
            ("train/reconstruction", self.reconstruction),
            ("train/commitment", self.commitment),
            ("train/learning_rate", self.learning_rate),
            ("train/gradient_norm", self.gradient_norm),
            ("train/codes_used", self.codes_used),
            ("train/code_perplexity", self.perplexity),
            ("train/revived", self.revived as f64),
            ("speed/images_per_second", self.images_per_second),
        ]
    }
}

/// Sums of the steps since the last line that were not skipped.
#[derive(Default, Serialize, Deserialize)]
pub struct CodecSums {
    steps: u64,
    reconstruction: f64,
    commitment: f64,
    norm: f64,
    /// How often each code occurred; empty where nothing was quantized.
    usage: Vec<u64>,
    revived: i64,
}

impl CodecSums {
    /// Adds a step whose gradient had the L2 norm `norm`.
    pub fn add(&mut self, report: &CodecReport, norm: f64) {
        self.steps += 1;
        self.reconstruction += report.reconstruction;
        self.commitment += report.commitment;
        self.norm += norm;
        let entries = report.usage.len().max(self.usage.len());
        self.usage.resize(entries, 0);
        for (sum, count) in self.usage.iter_mut().zip(&report.usage) {
            *sum += count;
        }
        self.revived += report.revived;
    }

    /// The line of the log at `state`, whose last step had the learning rate `rate`.
    pub fn line(&self, state: &RunState, rate: f64, images_per_second: f64) -> CodecLine {
        let mean = |sum: f64| sum / self.steps.max(1) as f64;
        let used = self.usage.iter().filter(|&&count| count > 0).count();
        CodecLine {
            step: state.step,
            reconstruction: mean(self.reconstruction),
            commitment: mean(self.commitment),
            learning_rate: rate,
            gradient_norm: mean(self.norm),
            codes_used: used as f64 / self.usage.len().max(1) as f64,
            perplexity: perplexity(&self.usage),
            revived: self.revived,
            images_per_second,
        }
    }
}
