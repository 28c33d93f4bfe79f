//! Noise schedules (arXiv 2111.14822, section 4.1): the one place where the noise
//! between two times is derived.

use serde::{Deserialize, Serialize};

use crate::config_error::ConfigError;

/// Which noise corrupts the tokens, with the linear course of its cumulative
/// probabilities: `[first, last]` are the values at times 0 and T−1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Transition {
    /// Tokens are kept with ᾱ, masked with γ̄, else replaced by a uniform code.
    MaskAndReplace { alpha: [f64; 2], gamma: [f64; 2] },
    /// Tokens are kept or masked: ᾱ = 1 − γ̄.
    MaskOnly { gamma: [f64; 2] },
    /// Tokens are kept or replaced by a uniform code: γ̄ = 0.
    Uniform { alpha: [f64; 2] },
}

impl Transition {
    /// Whether the course is one of noise that only grows; the problem if not.
    pub fn check(&self) -> Result<(), ConfigError> {
        let line = |name: &str, [first, last]: [f64; 2], rises: bool| {
            let inside = [first, last].iter().all(|x| (0.0..=1.0).contains(x));
            if inside && (if rises { first <= last } else { first >= last }) {
                return Ok(());
            }
            let course = if rises { "rising" } else { "falling" };
            let expected = format!("{course} numbers from 0 to 1");
            Err(ConfigError::value(
                name,
                format!("[{first}, {last}]"),
                expected,
            ))
        };
        match *self {
            Transition::MaskAndReplace { alpha, gamma } => {
                line("alpha", alpha, false)?;
                line("gamma", gamma, true)?;
                match (0..2).find(|&i| alpha[i] + gamma[i] > 1.0 + ROUNDING) {
                    Some(i) => {
                        let [alpha, gamma] = [alpha[i], gamma[i]];
                        let problem = format!("{alpha} and gamma {gamma} are more than 1 together");
                        Err(ConfigError::contradiction("alpha", problem))
                    }
                    None => Ok(()),
                }
            }
            Transition::MaskOnly { gamma } => line("gamma", gamma, true),
            Transition::Uniform { alpha } => line("alpha", alpha, false),
        }
    }

    /// The schedule of every released model (`alpha1` of the official code):
    /// K·β̄ is 1e-6 throughout, so the noise is masking almost alone.
    pub fn released() -> Self {
        Transition::MaskAndReplace {
            alpha: [0.99999, 0.000009],
            gamma: [0.000009, 0.99999],
        }
    }
}

/// What the noise between two times does to a code: the three probabilities sum to 1.
/// The mask stays the mask.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Corruption {
    /// a: it is kept.
    pub keep: f64,
    /// K·b: it is replaced by a uniform code.
    pub uniform: f64,
    /// c: it is masked.
    pub mask: f64,
}

impl Corruption {
    const NONE: Corruption = Corruption {
        keep: 1.0,
        uniform: 0.0,
        mask: 0.0,
    };

    /// 1 − a: it is replaced or masked.
    pub fn noised(&self) -> f64 {
        self.uniform + self.mask
    }
}

/// K·b̄ below this is taken for 0.
const ROUNDING: f64 = 1e-14;

/// The cumulative probabilities of every time, in f64.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    times: Vec<Corruption>,
    codes: i64,
}

impl Schedule {
    /// `timesteps` is T ≥ 1, `codes` is K.
    pub fn new(transition: &Transition, timesteps: usize, codes: i64) -> Self {
        let line = |[first, last]: [f64; 2], t: usize| {
            let span = timesteps.saturating_sub(1).max(1) as f64;
            t as f64 / span * (last - first) + first
        };
        let times = (0..timesteps)
            .map(|t| match *transition {
                Transition::MaskAndReplace { alpha, gamma } => {
                    let (keep, mask) = (line(alpha, t), line(gamma, t));
                    let uniform = 1.0 - keep - mask;
                    Corruption {
                        keep,
                        // Where ᾱ and γ̄ sum to 1 this is rounding error.
                        uniform: if uniform < ROUNDING { 0.0 } else { uniform },
                        mask,
                    }
                }
                Transition::MaskOnly { gamma } => Corruption {
                    keep: 1.0 - line(gamma, t),
                    uniform: 0.0,
                    mask: line(gamma, t),
                },
                Transition::Uniform { alpha } => Corruption {
                    keep: line(alpha, t),
                    uniform: 1.0 - line(alpha, t),
                    mask: 0.0,
                },
            })
            .collect();
        Schedule { times, codes }
    }

    /// T.
    pub fn timesteps(&self) -> usize {
        self.times.len()
    }

    /// Whether its noise masks tokens at all.
    pub fn masks(&self) -> bool {
        self.at(self.timesteps() as i64 - 1).mask > 0.0
    }

    /// K, which is also the index of the mask token.
    pub fn codes(&self) -> i64 {
        self.codes
    }

    /// ā, K·b̄ and c̄ (eq. 8): the noise from clean tokens to the time `t` in −1…T−1,
    /// where −1 is clean.
    pub fn at(&self, t: i64) -> Corruption {
        usize::try_from(t).map_or(Corruption::NONE, |t| self.times[t])
    }

    /// a, K·b and c of q(x_t | x_s): the noise that leads from `s` to `t`,
    /// −1 ≤ s < t ≤ T−1. One step (s = t − 1) is the matrix Q_t (eqs. 3 and 7); further
    /// apart it is the product Q_t … Q_{s+1}, which has the same form.
    pub fn between(&self, s: i64, t: i64) -> Corruption {
        let (then, now) = (self.at(s), self.at(t));
        let keep = now.keep / then.keep;
        Corruption {
            keep,
            uniform: (now.uniform - keep * then.uniform) / (1.0 - then.mask),
            mask: 1.0 - (1.0 - now.mask) / (1.0 - then.mask),
        }
    }
}
