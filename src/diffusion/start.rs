//! What a run starts from: nothing, or pictures of which a part may be kept.

use tch::{Device, Kind, Tensor};

use super::forward::q_sample;
use super::noise::{Draw, Noise};
use super::options::ReverseRule;
use super::sampler::Sampler;

/// The state before the first step.
pub struct Start {
    /// Tokens at the time of the first step, int64 `[B, L]` on the model's device.
    pub tokens: Tensor,
    /// Tokens that never change, bool `[B, L]`; they must be below K.
    pub kept: Option<Tensor>,
}

impl From<Tensor> for Start {
    fn from(tokens: Tensor) -> Self {
        Start { tokens, kept: None }
    }
}

impl Start {
    pub fn to_device(&self, device: Device) -> Self {
        Start {
            tokens: self.tokens.to_device(device),
            kept: self.kept.as_ref().map(|kept| kept.to_device(device)),
        }
    }
}

impl Sampler {
    /// x_T ~ p(x_T) for `batch` images, int64 `[B, L]` on the CPU: each token the
    /// mask with probability c̄ / (K·b̄ + c̄), else a uniform code. The originals'
    /// rules always start from masks.
    pub fn start(&self, batch: i64, noise: &mut dyn Noise) -> Tensor {
        let codes = self.schedule.codes();
        let shape = [batch, self.tokens];
        if self.config.rule != ReverseRule::Exact {
            return Tensor::full(shape, codes, (Kind::Int64, Device::Cpu));
        }
        let prior = self.schedule.at(self.schedule.timesteps() as i64 - 1);
        let share = prior.mask / (prior.uniform + prior.mask);
        // One number decides both: the part above the mask's share is the code.
        let u = noise.uniform(0, Draw::Start, &shape);
        let code = (&u - share) / (1.0 - share).max(f64::MIN_POSITIVE) * codes as f64;
        let code = code.to_kind(Kind::Int64).clamp(0, codes - 1);
        code.masked_fill(&u.lt(share), codes)
    }

    /// The start of a run from pictures `x_0` int64 `[B, L]` on the CPU, of which the
    /// tokens where `redrawn` (bool `[B, L]`; all when `None`) is false are kept. The
    /// others are x_T ~ p(x_T), as in [`start`](Self::start), or x_t ~ q(x_t | x_0) in
    /// a run of less than full [strength](Self::with_strength), t its first time.
    pub fn start_from(
        &self,
        x_0: &Tensor,
        redrawn: Option<&Tensor>,
        noise: &mut dyn Noise,
    ) -> Start {
        let noisy = if self.partial {
            let t = self.steps.first().map_or(-1, |step| step.network);
            let uniform = noise.uniform(0, Draw::Start, &x_0.size());
            q_sample(&self.schedule, x_0, &[t], &uniform)
        } else {
            self.start(x_0.size()[0], noise)
        };
        match redrawn {
            None => noisy.into(),
            Some(redrawn) => Start {
                tokens: noisy.where_self(redrawn, x_0),
                kept: Some(redrawn.logical_not()),
            },
        }
    }
}
