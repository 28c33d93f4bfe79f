//! The learning rate: linear warm-up, then constant, cosine, or halved on a plateau
//! of the loss (official `ReduceLROnPlateauWithWarmup`, `CosineAnnealingLRWithWarmup`).

use serde::{Deserialize, Serialize};

use super::range::{check_counts, check_most, check_numbers, Range, MOST_STEPS};
use crate::config_error::ConfigError;

/// Whether a loss must improve by a share of the best one or by an amount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMode {
    Relative,
    Absolute,
}

/// The course after the warm-up.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Course {
    /// The peak stays.
    Constant,
    /// From the peak to `minimum` along half a cosine, reached at step `total` (0: the
    /// run's last).
    Cosine {
        #[serde(default)]
        total: u64,
        minimum: f64,
    },
    /// Multiplied by `factor` when the training loss has not improved for `patience` steps.
    Plateau {
        factor: f64,
        /// Steps without improvement that are borne.
        patience: u64,
        /// The improvement that counts, as `mode` says.
        threshold: f64,
        #[serde(default = "relative")]
        mode: ThresholdMode,
        /// Steps after a reduction in which nothing is counted.
        #[serde(default)]
        cooldown: u64,
        minimum: f64,
        /// The loss is watched as its mean over this many steps. The original watches
        /// single steps (1), whose noise makes `best` a lucky minimum.
        #[serde(default = "watch")]
        window: u64,
    },
}

fn relative() -> ThresholdMode {
    ThresholdMode::Relative
}

fn watch() -> u64 {
    100
}

/// The learning rate over a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LearningRateConfig {
    /// Rate of the first step (`base_lr`).
    pub start: f64,
    /// Rate at the end of the warm-up (`warmup_lr`).
    pub peak: f64,
    /// Steps of linear warm-up; with 0 the course starts at `peak`.
    pub warmup: u64,
    pub course: Course,
}

impl LearningRateConfig {
    /// The same for a run of `steps`, which a cosine without an end of its own takes.
    pub fn over(&self, steps: u64) -> Self {
        let mut config = self.clone();
        if let Course::Cosine { total, .. } = &mut config.course {
            *total = if *total == 0 { steps } else { *total };
        }
        config
    }

    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_numbers(&[
            ("start", self.start, Range::AboveZero),
            ("peak", self.peak, Range::AboveZero),
        ])?;
        check_most(&[("warmup", self.warmup, MOST_STEPS)])?;
        let minimum = |x| ("course.minimum", x, Range::UpTo("peak", self.peak));
        match self.course {
            Course::Constant => Ok(()),
            Course::Cosine { total, minimum: x } => {
                check_most(&[("course.total", total, MOST_STEPS)])?;
                check_numbers(&[minimum(x)])
            }
            Course::Plateau {
                factor,
                patience,
                threshold,
                cooldown,
                minimum: x,
                window,
                ..
            } => {
                check_counts(&[("course.window", window, MOST_STEPS)])?;
                check_most(&[
                    ("course.patience", patience, MOST_STEPS),
                    ("course.cooldown", cooldown, MOST_STEPS),
                ])?;
                check_numbers(&[
                    ("course.factor", factor, Range::Fraction),
                    ("course.threshold", threshold, Range::AtLeastZero),
                    minimum(x),
                ])
            }
        }
    }
}

/// Reductions smaller than this are not made (PyTorch's `eps`).
const SMALLEST_CHANGE: f64 = 1e-8;

/// Where a run is in its course; the fields are what a checkpoint must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct LearningRate {
    config: LearningRateConfig,
    /// Cosine with the original's counter, which starts at −1: one more warm-up step.
    late_cosine: bool,
    /// Rate of the next step.
    pub rate: f64,
    /// Steps taken.
    pub steps: u64,
    pub plateau: PlateauState,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PlateauState {
    /// Lowest loss so far.
    pub best: f64,
    /// Steps since it.
    pub bad_steps: u64,
    pub cooldown_left: u64,
    /// Sum of the losses of the running window.
    pub window_sum: f64,
    pub window_steps: u64,
}

impl LearningRate {
    /// `late_cosine` repeats the original's counter.
    pub fn new(config: &LearningRateConfig, late_cosine: bool) -> Self {
        LearningRate {
            config: config.clone(),
            late_cosine,
            rate: if config.warmup == 0 {
                config.peak
            } else {
                config.start
            },
            steps: 0,
            plateau: PlateauState {
                best: f64::INFINITY,
                bad_steps: 0,
                cooldown_left: 0,
                window_sum: 0.0,
                window_steps: 0,
            },
        }
    }

    /// Rate added per warm-up step.
    fn slope(&self) -> f64 {
        let c = &self.config;
        if c.warmup == 0 {
            0.0
        } else {
            ((c.peak - c.start) / c.warmup as f64).max(0.0)
        }
    }

    fn minimum(&self) -> f64 {
        match self.config.course {
            Course::Constant => 0.0,
            Course::Cosine { minimum, .. } | Course::Plateau { minimum, .. } => minimum,
        }
    }

    /// One optimizer step with this training loss is done; sets the next rate.
    pub fn step(&mut self, loss: f64) {
        self.steps += 1;
        let warmup = match self.config.course {
            Course::Cosine { .. } if self.late_cosine => self.config.warmup + 1,
            _ => self.config.warmup,
        };
        if self.steps <= warmup {
            self.rate = (self.rate + self.slope()).max(self.minimum());
            return;
        }
        match self.config.course.clone() {
            Course::Constant => self.rate = self.config.peak,
            Course::Cosine { total, minimum } => {
                let late = u64::from(self.late_cosine);
                let peak = self.config.peak + late as f64 * self.slope();
                let done = (self.steps - late - self.config.warmup) as f64;
                let whole = total.saturating_sub(self.config.warmup).max(1) as f64;
                let share = if self.late_cosine {
                    done / whole
                } else {
                    (done / whole).min(1.0)
                };
                let cosine = peak * 0.5 * (1.0 + (std::f64::consts::PI * share).cos());
                self.rate = cosine.max(minimum);
            }
            Course::Plateau { .. } => self.watch(loss),
        }
    }

    fn watch(&mut self, loss: f64) {
        let Course::Plateau {
            factor,
            patience,
            threshold,
            mode,
            cooldown,
            minimum,
            window,
        } = self.config.course
        else {
            return;
        };
        let state = &mut self.plateau;
        state.window_sum += loss;
        state.window_steps += 1;
        if state.window_steps < window {
            return;
        }
        let steps = state.window_steps;
        let mean = state.window_sum / steps as f64;
        state.window_sum = 0.0;
        state.window_steps = 0;
        let needed = match mode {
            ThresholdMode::Relative => state.best * (1.0 - threshold),
            ThresholdMode::Absolute => state.best - threshold,
        };
        if mean < needed {
            state.best = mean;
            state.bad_steps = 0;
        } else {
            state.bad_steps += steps;
        }
        if state.cooldown_left > 0 {
            state.cooldown_left = state.cooldown_left.saturating_sub(steps);
            state.bad_steps = 0;
        }
        if state.bad_steps > patience {
            let reduced = (self.rate * factor).max(minimum);
            if self.rate - reduced > SMALLEST_CHANGE {
                self.rate = reduced;
            }
            state.cooldown_left = cooldown;
            state.bad_steps = 0;
        }
    }
}
