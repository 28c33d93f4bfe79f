//! Norms modulated by time or class.

use tch::{Kind, Tensor};

use super::config::{AdaptiveNorm, DenoiserConfig, IndexEmbedding, NullClass};
use crate::torch::norm::{layer_norm, EPSILON};
use crate::torch::{Init, Linear, Params};

/// 1 + s and b of an adaptive norm for some rows: `[N, D]` each, in the hidden state's
/// kind.
pub struct Affine {
    gain: Tensor,
    shift: Tensor,
    norm: AdaptiveNorm,
}

impl Affine {
    /// N(x) ⊙ (1 + s) + b: `x` `[B, L, D]`, one row for the batch or one a sample.
    pub fn apply(&self, x: &Tensor) -> Tensor {
        let rows = self.gain.size()[0];
        let width = [self.gain.size()[1]];
        if self.norm == AdaptiveNorm::Instance {
            let normed = instance_norm(x);
            return normed * self.gain.unsqueeze(1) + self.shift.unsqueeze(1);
        }
        if rows == 1 {
            // A shared row makes it an ordinary affine layer norm.
            let (gain, shift) = (self.gain.view(width), self.shift.view(width));
            return layer_norm(x, Some([&gain, &shift]), EPSILON);
        }
        layer_norm(x, None, EPSILON) * self.gain.unsqueeze(1) + self.shift.unsqueeze(1)
    }

    /// The same values at new places.
    pub fn copy(&self) -> Self {
        Affine {
            gain: self.gain.copy(),
            shift: self.shift.copy(),
            norm: self.norm,
        }
    }

    /// Takes the values of `other`, of as many rows, to where its own are.
    pub fn fill(&mut self, other: &Self) {
        self.gain.copy_(&other.gain);
        self.shift.copy_(&other.shift);
    }

    /// The first `rows` alone.
    pub fn first(&self, rows: i64) -> Self {
        Affine {
            gain: self.gain.narrow(0, 0, rows),
            shift: self.shift.narrow(0, 0, rows),
            norm: self.norm,
        }
    }

    fn row(&self, index: &Tensor) -> Self {
        Affine {
            gain: self.gain.index_select(0, index),
            shift: self.shift.index_select(0, index),
            norm: self.norm,
        }
    }
}

/// Every channel over the tokens: `[B, L, D]` → `[B, L, D]` (PyTorch's `InstanceNorm1d`
/// without weights).
fn instance_norm(x: &Tensor) -> Tensor {
    let channels = x.transpose(1, 2); // [B, D, L]
    layer_norm(&channels, None, EPSILON).transpose(1, 2)
}

/// [s; b] = W·SiLU(u) + β (official `AdaLayerNorm`, `AdaInsNorm`), in f32 whatever the
/// hidden state's kind.
struct Modulation {
    linear: Linear, // D → 2D
    norm: AdaptiveNorm,
    kind: Kind,
}

impl Modulation {
    fn new(p: &Params, width: i64, norm: AdaptiveNorm) -> Self {
        let linear = p.with_kind(Kind::Float).at("linear");
        Modulation {
            linear: Linear::new(&linear, width, 2 * width),
            norm,
            kind: p.kind(),
        }
    }

    /// Of rows u `[N, D]`.
    fn of(&self, u: &Tensor) -> Affine {
        let both = self.linear.forward(&u.silu()).chunk(2, 1); // [N, D] twice
        Affine {
            gain: (&both[0] + 1.0).to_kind(self.kind),
            shift: both[1].to_kind(self.kind),
            norm: self.norm,
        }
    }
}

/// What u an index has, `[rows, D]`: learned rows or sinusoids.
fn index_table(p: &Params, embedding: IndexEmbedding, rows: i64, width: i64) -> Tensor {
    match embedding {
        IndexEmbedding::Table => {
            let p = p.with_kind(Kind::Float);
            p.get("emb.weight", &[rows, width], Init::Normal(0.02))
        }
        IndexEmbedding::Sinusoid => sinusoid(rows, width).to_device(p.device()),
    }
}

/// AdaN(x, t) = N(x) ⊙ (1 + s_t) + b_t, N the layer norm or the instance norm; u_t is a
/// learned row or a sinusoid.
pub struct TimeNorm {
    timestep: Tensor, // u [T, D]
    modulation: Modulation,
    /// Of every time index, evaluated once at one fixed shape so that a row's bits do
    /// not depend on how many rows are asked for.
    table: Option<Affine>,
}

impl TimeNorm {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let (steps, width) = (config.timesteps, config.width);
        TimeNorm {
            timestep: index_table(p, config.timestep_embedding, steps, width),
            modulation: Modulation::new(p, width, config.timestep_norm),
            table: None,
        }
    }

    /// Evaluates the modulation of every time index, for inference.
    pub fn tabulate(&mut self) {
        self.table = Some(self.modulation.of(&self.timestep));
    }

    /// `x` `[B, L, D]`, `t` int64 `[1]` (one time for the batch) or `[B]` → `[B, L, D]`.
    pub fn forward(&self, x: &Tensor, t: &Tensor) -> Tensor {
        let affine = match &self.table {
            Some(table) => table.row(t),
            None => self.modulation.of(&self.timestep.index_select(0, t)),
        };
        affine.apply(x)
    }
}

/// AdaN(x, y) of a class y, before the feed-forward part.
pub struct ClassNorm {
    class: Tensor, // u [classes, D], one row more with a learned null class
    modulation: Modulation,
    /// Number of classes, where their mean row stands for no class.
    mean_beyond: Option<i64>,
}

impl ClassNorm {
    /// Of `classes` classes, of which `null` stands for none.
    pub fn new(
        p: &Params,
        width: i64,
        classes: i64,
        null: NullClass,
        embedding: IndexEmbedding,
        norm: AdaptiveNorm,
    ) -> Self {
        let rows = match null {
            NullClass::Learned => classes + 1,
            NullClass::Mean | NullClass::Absent => classes,
        };
        ClassNorm {
            class: index_table(p, embedding, rows, width),
            modulation: Modulation::new(p, width, norm),
            mean_beyond: (null == NullClass::Mean).then_some(classes),
        }
    }

    /// Scale and shift of `class` int64 `[B]`; the number of classes means none.
    ///
    /// Without a learned row, "none" is the mean of the classes' rows, sample by
    /// sample. The original decides by the first sample alone: if it has no class, all
    /// get the mean, and a sample without class elsewhere is an error.
    pub fn condition(&self, class: &Tensor) -> Affine {
        let Some(classes) = self.mean_beyond else {
            return self.modulation.of(&self.class.index_select(0, class));
        };
        let rows = self.class.index_select(0, &class.clamp_max(classes - 1)); // [B, D]
        let mean = self.class.mean_dim(0, true, None::<Kind>); // [1, D]
        let none = class.ge(classes).unsqueeze(1); // [B, 1]
        self.modulation.of(&mean.where_self(&none, &rows))
    }
}

/// u_i = [sin(z ω_0) …, cos(z ω_0) …] with z = i / N · 4000 for N = `steps`, ω_j = exp(−j ln(10000)/(D/2 − 1)),
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
