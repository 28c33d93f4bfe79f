//! Which times a run visits.

use serde::{Deserialize, Serialize};

use crate::diffusion::schedule::Schedule;

/// One step of the reverse process and what the network is asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedStep {
    /// Time index given to the network.
    pub network: i64,
    /// The reverse step goes from this time …
    pub from: i64,
    /// … back to this one (−1 is clean).
    pub to: i64,
}

/// How the times of a run are spread over the schedule. The exact posterior holds between
/// any two times, so every choice is exact for each position; what differs is how many
/// tokens are drawn at once, not knowing of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Times {
    /// At even distances: as many tokens at every step.
    #[default]
    Even,
    /// Where the noised share of the tokens is cos(πi/2n): few tokens first, while they
    /// tell each other most, and many at the end.
    Cosine,
}

impl Times {
    /// Whether these are the usual times, which records do not name.
    pub fn is_even(&self) -> bool {
        *self == Times::Even
    }

    /// The times of `steps` n steps, 1 ≤ n ≤ T, strictly falling from T−1; each steps to
    /// the next and the last to clean.
    pub fn of(self, steps: usize, schedule: &Schedule) -> Vec<PlannedStep> {
        match self {
            Times::Even => even(steps, schedule.timesteps()),
            Times::Cosine => cosine(steps, schedule),
        }
    }

    /// Steps left out of the plan `steps` so that it begins with a state of which about
    /// this share, in 0…1, is noise; all of them at 0 only. By the number of steps where
    /// they are even: round(`strength` · n) remain.
    pub fn skipped(self, strength: f64, steps: &[PlannedStep], schedule: &Schedule) -> usize {
        let n = steps.len();
        let skipped = match self {
            Times::Even => n - (strength * n as f64).round() as usize,
            Times::Cosine => {
                let distance =
                    |step: &PlannedStep| (schedule.at(step.network).noised() - strength).abs();
                // The longest of equally near ones.
                let near =
                    (0..n).min_by(|&i, &j| distance(&steps[i]).total_cmp(&distance(&steps[j])));
                if strength == 1.0 {
                    0
                } else {
                    near.unwrap_or(0)
                }
            }
        };
        match strength > 0.0 {
            true => skipped.min(n.saturating_sub(1)),
            false => n,
        }
    }
}

/// Times t_i = ⌈T(n − i)/n⌉ − 1.
pub fn even(steps: usize, timesteps: usize) -> Vec<PlannedStep> {
    let time = |i: usize| (timesteps * (steps - i)).div_ceil(steps) as i64 - 1;
    stepping(&(0..steps).map(time).collect::<Vec<_>>())
}

/// Times t_i whose noised share 1 − ā is nearest cos(πi/2n), but t_0 = T−1 and every next
/// one earlier.
pub fn cosine(steps: usize, schedule: &Schedule) -> Vec<PlannedStep> {
    let mut nearest = schedule.timesteps() as i64 - 1;
    let mut times = vec![nearest];
    for i in 1..steps {
        let share = (std::f64::consts::FRAC_PI_2 * i as f64 / steps as f64).cos();
        let distance = |t: i64| (schedule.at(t).noised() - share).abs();
        // The share falls with t, and so does the one that is looked for.
        while nearest > 0 && distance(nearest - 1) <= distance(nearest) {
            nearest -= 1;
        }
        // Room for the steps that follow.
        let least = (steps - 1 - i) as i64;
        times.push(nearest.min(times[i - 1] - 1).max(least));
    }
    stepping(&times)
}

/// The steps through `times`, each to the next and the last to clean.
pub fn stepping(times: &[i64]) -> Vec<PlannedStep> {
    let next = times.iter().skip(1).copied().chain([-1]);
    times
        .iter()
        .zip(next)
        .map(|(&from, to)| PlannedStep {
            network: from,
            from,
            to,
        })
        .collect()
}
