//! Layer norm, plain and modulated by time.

use tch::{Kind, Tensor};

use super::config::{DenoiserConfig, TimestepEmbedding};
use crate::torch::{Init, Linear, Params};

const EPSILON: f64 = 1e-5;

/// Layer norm with learned gain and bias.
pub struct LayerNorm {
    weight: Tensor,
    bias: Tensor,
}

impl LayerNorm {
    pub fn new(p: &Params, width: i64) -> Self {
        LayerNorm {
            weight: p.get("weight", &[width], Init::Ones),
            bias: p.get("bias", &[width], Init::Zeros),
        }
    }

    /// `[…, D]` → `[…, D]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let width = self.weight.size();
        x.layer_norm(width, Some(&self.weight), Some(&self.bias), EPSILON, true)
    }
}

/// AdaLN(x, t) = LN(x) ⊙ (1 + s_t) + b_t with [s_t; b_t] = W·SiLU(u_t) + β
/// (official `AdaLayerNorm`); u_t is a learned row or a sinusoid.
pub struct AdaptiveNorm {
    timestep: Tensor, // u [T, D]
    linear: Linear,   // D → 2D
    table: Option<ModulationTable>,
    width: i64,
    /// Kind of the hidden state; the modulation itself is computed in f32.
    kind: Kind,
}

/// 1 + s and b of every time index, evaluated once at one fixed shape so that a
/// row's bits do not depend on how many rows are asked for.
struct ModulationTable {
    gain: Tensor,  // [T, D]
    shift: Tensor, // [T, D]
}

impl AdaptiveNorm {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let (steps, width) = (config.timesteps, config.width);
        let kind = p.kind();
        let p = p.with_kind(Kind::Float);
        let timestep = match config.timestep_embedding {
            TimestepEmbedding::Table => p.get("emb.weight", &[steps, width], Init::Normal(0.02)),
            TimestepEmbedding::Sinusoid => sinusoid(steps, width).to_device(p.device()),
        };
        AdaptiveNorm {
            timestep,
            linear: Linear::new(&p.at("linear"), width, 2 * width),
            table: None,
            width,
            kind,
        }
    }

    /// Evaluates the modulation of every time index, for inference.
    pub fn tabulate(&mut self) {
        let (scale, shift) = self.modulation(&self.timestep); // [T, D] each
        self.table = Some(ModulationTable {
            gain: (scale + 1.0).to_kind(self.kind),
            shift: shift.to_kind(self.kind),
        });
    }

    /// `x` `[B, L, D]`, `t` int64 `[1]` (one time for the batch) or `[B]` → `[B, L, D]`.
    pub fn forward(&self, x: &Tensor, t: &Tensor) -> Tensor {
        let width = [self.width];
        if let (Some(table), [1]) = (&self.table, t.size().as_slice()) {
            // At a shared time the modulation is an ordinary affine layer norm.
            let gain = table.gain.index_select(0, t).view(width);
            let shift = table.shift.index_select(0, t).view(width);
            return x.layer_norm(width, Some(&gain), Some(&shift), EPSILON, true);
        }
        let (scale, shift) = self.modulation(&self.timestep.index_select(0, t)); // [B, D]
        let normed = x.layer_norm(width, None::<&Tensor>, None::<&Tensor>, EPSILON, true);
        let gain = (scale + 1.0).to_kind(self.kind).unsqueeze(1); // [B, 1, D]
        normed * gain + shift.to_kind(self.kind).unsqueeze(1)
    }

    fn modulation(&self, timestep: &Tensor) -> (Tensor, Tensor) {
        let both = self.linear.forward(&timestep.silu()); // [B, 2D]
        (
            both.narrow(1, 0, self.width),
            both.narrow(1, self.width, self.width),
        )
    }
}

/// u_i = [sin(z ω_0) …, cos(z ω_0) …] with z = i / T · 4000, ω_j = exp(−j ln(10000)/(D/2 − 1)),
/// in float32 like the original: `[T, D]`.
fn sinusoid(steps: i64, width: i64) -> Tensor {
    let half = width / 2;
    let options = (Kind::Float, tch::Device::Cpu);
    let slope = 10_000f64.ln() / (half - 1) as f64;
    let frequency = (Tensor::arange(half, options) * -slope).exp(); // [D / 2]
    let time = Tensor::arange(steps, options) / steps as f64 * 4000.0; // [T]
    let phase = time.unsqueeze(1) * frequency.unsqueeze(0); // [T, D / 2]
    Tensor::cat(&[phase.sin(), phase.cos()], 1)
}
