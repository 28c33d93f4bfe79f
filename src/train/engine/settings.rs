//! What a run asks of every task's configuration.

use serde::{Deserialize, Serialize};

use super::rules::Rules;

/// Steps in a row whose loss or gradient is not finite before a run is given up.
pub const SKIP_LIMIT: u64 = 10;

/// When checkpoints are written, and how many stay.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// Steps between checkpoints.
    pub every: u64,
    /// Newest checkpoints that are kept, besides the best.
    pub keep: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig {
            every: 1000,
            keep: 2,
        }
    }
}

/// The number format in which several processes send each other their gradients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GradientFormat {
    #[default]
    F32,
    /// Half the bytes. Sums are rounded to eight bits, so the steps of two processes are
    /// no longer those of one up to rounding in f32.
    Bf16,
}

/// The settings of a run; a task's configuration gives them.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Optimizer steps of the whole run.
    pub steps: u64,
    /// Samples that go through the network together.
    pub batch_size: usize,
    /// Such batches per optimizer step.
    pub accumulation: usize,
    pub gradients: GradientFormat,
    pub rules: Rules,
    pub skip_limit: u64,
    /// Steps between lines of the log.
    pub log_every: u64,
    pub checkpoint: CheckpointConfig,
    /// Steps between validations; 0 for none.
    pub validation_every: u64,
    /// Checkpoints between sample sheets; 0 for none.
    pub preview_every: u64,
}

impl Settings {
    /// Samples per optimizer step.
    pub fn effective_batch(&self) -> u64 {
        self.batch_size as u64 * self.accumulation as u64
    }

    /// Whether `every` steps end at `step`, or the run does; never for 0.
    pub(super) fn due(&self, step: u64, every: u64) -> bool {
        every > 0 && (step == self.steps || step.is_multiple_of(every))
    }

    /// Checkpoints that a run which nothing interrupts has written up to `step`, which is
    /// one's: those at every `checkpoint.every`, those after validations, and the last.
    fn checkpoints_until(&self, step: u64) -> u64 {
        let (saves, validations) = (self.checkpoint.every, self.validation_every);
        let both = match validations {
            0 => 0,
            _ => step / validations - step / least_common_multiple(saves, validations),
        };
        let regular =
            step.is_multiple_of(saves) || validations > 0 && step.is_multiple_of(validations);
        step / saves + both + u64::from(!regular)
    }

    /// Whether a sample sheet follows the checkpoint of `step`.
    pub(super) fn previews(&self, step: u64) -> bool {
        let every = self.preview_every;
        let due = self.due(step, self.checkpoint.every) || self.due(step, self.validation_every);
        let nth = || self.checkpoints_until(step).is_multiple_of(every);
        every > 0 && due && (step == self.steps || nth())
    }
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    (a / x).saturating_mul(b)
}
