//! Which positions the steps of an exact run redraw, and with which numbers: found from the
//! noise alone, before the network runs.
//!
//! Whether a position stays is decided by one uniform number against a threshold that depends
//! only on whether it is masked, and a masked position leaves the mask exactly when it does not
//! stay. So the network's last block and head are needed at the others alone.

use tch::{Device, Tensor};

use super::order::{Reveal, STAYS};
use crate::diffusion::noise::{Draw, Noise};
use crate::diffusion::posterior::{Posterior, StepNoise};
use crate::torch::host::values;

/// How many positions A the steps are evaluated at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Widths {
    /// As many as the step redraws.
    Own,
    /// The next of few sizes, so that a GPU's libraries plan for few shapes: 16, 24, 32,
    /// 48, 64, 96, …, at most L. A position asked about twice gives the same token.
    Few,
}

impl Widths {
    /// A for `active` of `length` positions.
    pub fn of(self, active: usize, length: usize) -> usize {
        match self {
            Widths::Own => active,
            Widths::Few => (4..)
                .flat_map(|k| [2usize << (k - 1), 3 << (k - 1)])
                .find(|&width| width >= active)
                .map_or(length, |width| width.min(length)),
        }
    }
}

/// What each step of a run redraws, and with which numbers: found from the noise alone,
/// and brought to the device at once.
pub struct Activity {
    /// None where no token changes.
    steps: Vec<Option<ActiveStep>>,
}

/// The part of the tokens that a step redraws.
pub struct ActiveStep {
    /// Positions int64 `[B, A]`. Rows with fewer than A of them are filled with the row's
    /// first one, or with a position that stays.
    pub positions: Tensor,
    /// The numbers of these positions, `[B, A]` each.
    pub noise: StepNoise,
}

impl Activity {
    /// `masked` bool `[B, L]`: where x_T is the mask, on the device of the run; positions
    /// that are `kept` bool `[B, L]` stay. `reveal` says when masked ones leave the
    /// mask, where they do not each decide by themselves.
    pub fn new(
        posteriors: &[Posterior],
        masked: &Tensor,
        kept: Option<&Tensor>,
        mut reveal: Option<&mut Reveal>,
        noise: &mut dyn Noise,
        widths: Widths,
    ) -> Self {
        let (device, shape) = (masked.device(), masked.size());
        let (batch, length) = (shape[0], shape[1] as usize);
        let kept = kept.map(|kept| kept.to_device(Device::Cpu));
        let mut masked = values::<bool>(masked);
        let mut positions: Vec<i64> = Vec::new();
        let mut numbers: Vec<Tensor> = Vec::new();
        let mut sizes = Vec::with_capacity(posteriors.len());
        for (i, posterior) in posteriors.iter().enumerate() {
            let [code, choice, replacement] = [Draw::Code, Draw::Choice, Draw::Replacement]
                .map(|draw| noise.uniform(i, draw, &shape));
            let choice = match &mut reveal {
                Some(reveal) => reveal.choose(posterior, &masked, &choice),
                None => choice,
            };
            let choice = match &kept {
                Some(kept) => choice.masked_fill(kept, STAYS),
                None => choice,
            };
            let rows = active(posterior, &mut masked, &values::<f64>(&choice), length);
            let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
            let size = match longest {
                0 => 0,
                longest => widths.of(longest, length) as i64,
            };
            sizes.push(size);
            if size > 0 {
                let first = positions.len();
                positions.extend(rows.iter().flat_map(|row| filled(row, size as usize)));
                let at = Tensor::from_slice(&positions[first..]).view([batch, size]);
                let at_positions = |x: &Tensor| x.gather(1, &at, false).flatten(0, 1);
                numbers.extend([&code, &choice, &replacement].map(at_positions));
            }
        }
        if numbers.is_empty() {
            return Activity {
                steps: sizes.iter().map(|_| None).collect(),
            };
        }
        let positions = Tensor::from_slice(&positions).to_device(device);
        let numbers = Tensor::cat(&numbers, 0).to_device(device);
        let mut first = 0;
        let steps = sizes.into_iter().map(|size| {
            let part = |x: &Tensor, at: i64| x.narrow(0, at, batch * size).view([batch, size]);
            let active = (size > 0).then(|| ActiveStep {
                positions: part(&positions, first),
                noise: StepNoise {
                    code: part(&numbers, 3 * first),
                    choice: part(&numbers, 3 * first + batch * size),
                    replacement: part(&numbers, 3 * first + 2 * batch * size),
                },
            });
            first += batch * size;
            active
        });
        Activity {
            steps: steps.collect(),
        }
    }

    /// What step `i` redraws; `None` if nothing.
    pub fn at(&self, i: usize) -> Option<&ActiveStep> {
        self.steps[i].as_ref()
    }

    /// Steps that redraw anything: the network evaluations of the run.
    pub fn evaluations(&self) -> usize {
        self.steps.iter().flatten().count()
    }
}

/// The positions of every image that a step lets change, by its `choice` `[B · L]`; those
/// of them that were `masked` `[B · L]` are no longer.
fn active(
    posterior: &Posterior,
    masked: &mut [bool],
    choice: &[f64],
    length: usize,
) -> Vec<Vec<i64>> {
    let moves = |masked: &mut bool, u: f64| {
        let kind = if *masked {
            posterior.masked
        } else {
            posterior.differs
        };
        let moves = u >= kind.stay;
        *masked &= !moves;
        moves
    };
    masked
        .chunks_mut(length)
        .zip(choice.chunks(length))
        .map(|(masked, choice)| {
            let tokens = (0..).zip(masked).zip(choice);
            tokens
                .filter_map(|((position, masked), &u)| moves(masked, u).then_some(position))
                .collect()
        })
        .collect()
}

/// `row` filled up to `size` with its first entry (position 0 if it has none): redrawing
/// a position twice with the same numbers gives the same token.
fn filled(row: &[i64], size: usize) -> impl Iterator<Item = i64> + '_ {
    let filler = row.first().copied().unwrap_or(0);
    let fill = std::iter::repeat_n(filler, size - row.len());
    row.iter().copied().chain(fill)
}
