//! Which times a run visits.

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

/// Times t_i = ⌈T(n − i)/n⌉ − 1, each stepping to the next and the last to clean:
/// `steps` n from 1 to `timesteps` T.
pub fn even(steps: usize, timesteps: usize) -> Vec<PlannedStep> {
    let times: Vec<i64> = (0..steps)
        .map(|i| (timesteps * (steps - i)).div_ceil(steps) as i64 - 1)
        .collect();
    stepping(&times)
}

/// The steps through `times`, each to the next and the last to clean.
fn stepping(times: &[i64]) -> Vec<PlannedStep> {
    let next = times[1..].iter().copied().chain([-1]);
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
