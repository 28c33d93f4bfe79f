//! The variational bound on a fixed subset, with fixed times and noise.

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Kind, Tensor};

use crate::data::Batch;
use crate::diffusion::objective::Terms;
use crate::ranks::Ranks;
use crate::train::TrainError;

/// Estimate of Σ_t L_t in nats per token, without the constant L_T: what `best` is chosen by.
///
/// Averages the main terms of `batch` at `times` times a sample. The times are spread
/// evenly over 0…T−1, so the same every time, and every pass of `size` samples is
/// evaluated by `terms`, in one of the processes. None when `stop` is set meanwhile in any.
pub fn bound(
    batch: &Batch,
    times: usize,
    size: usize,
    timesteps: usize,
    ranks: &Ranks,
    stop: &AtomicBool,
    terms: impl Fn(&Batch, &[i64]) -> Result<Terms, TrainError>,
) -> Result<Option<f64>, TrainError> {
    let _no_grad = tch::no_grad_guard();
    let count = batch.samples.len();
    let starts = || (0..count).step_by(size);
    let passes: Vec<(usize, usize)> = (0..times)
        .flat_map(|round| starts().map(move |start| (round, start)))
        .collect();
    let mut sums = vec![0.0; passes.len()];
    let mut stopped = false;
    for (n, &(round, start)) in passes.iter().enumerate().filter(|(n, _)| ranks.does(*n)) {
        stopped = stop.load(Ordering::Relaxed);
        if stopped {
            break;
        }
        let size = size.min(count - start);
        let part = rows(batch, start, size);
        // Sample i of round r is shown at the ((i · times + r) / (count · times))-th
        // part of the times.
        let t: Vec<i64> = (start..start + size)
            .map(|i| ((i * times + round) * timesteps / (count * times)) as i64)
            .collect();
        let main = terms(&part, &t)?.main;
        sums[n] = main.sum(Kind::Double).double_value(&[]);
    }
    if ranks.any(stopped)? {
        return Ok(None);
    }
    let sum: f64 = ranks.numbers_of_all(&sums)?.iter().sum();
    let (shown, tokens) = ((count * times) as f64, batch.tokens.size()[1] as f64);
    Ok(Some(sum / shown / tokens * timesteps as f64))
}

fn rows(batch: &Batch, start: usize, size: usize) -> Batch {
    let part = |x: &Tensor| x.narrow(0, start as i64, size as i64);
    Batch {
        tokens: part(&batch.tokens),
        text_ids: batch.text_ids.as_ref().map(part),
        labels: batch.labels.as_ref().map(part),
        dropped: part(&batch.dropped),
        samples: batch.samples[start..start + size].to_vec(),
    }
}
