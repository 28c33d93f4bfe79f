//! AdamW over all parameters as one group, or Muon over the hidden matrices and AdamW over
//! the rest; and the clipping of their gradients.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::muon::{muon, HiddenMatrices, HiddenSlot, MuonConstants};
use super::parameters::Parameters;
use super::range::{check_numbers, Range};
use super::recipe::Recipe;
use crate::config_error::ConfigError;
use crate::torch::adamw::{fused_adamw, AdamWConstants, Slot};
use crate::torch::foreach;

/// Which rule changes the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerKind {
    /// AdamW for all parameters, as in the original.
    #[default]
    Adamw,
    /// [`muon`] for the hidden weight matrices, AdamW for the others.
    Muon,
}

/// AdamW with the original's constants; weight decay acts on every parameter, biases
/// and embeddings too. Learning rate and weight decay are Muon's as well.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OptimizerConfig {
    #[serde(skip_serializing_if = "is_adamw")]
    pub kind: OptimizerKind,
    /// Decay of Muon's average of the gradients, 0.95 if absent; AdamW has `betas`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    pub betas: [f64; 2],
    pub weight_decay: f64,
    pub epsilon: f64,
}

fn is_adamw(kind: &OptimizerKind) -> bool {
    *kind == OptimizerKind::Adamw
}

impl Default for OptimizerConfig {
    fn default() -> Self {
        OptimizerConfig {
            kind: OptimizerKind::Adamw,
            momentum: None,
            betas: [0.9, 0.96],
            weight_decay: 0.045,
            epsilon: 1e-8,
        }
    }
}

/// μ of Muon where nothing is said.
const MOMENTUM: f64 = 0.95;

impl OptimizerConfig {
    /// Whether the values are possible; the first that is not, by its key.
    pub fn check(&self) -> Result<(), ConfigError> {
        match (self.kind, self.momentum) {
            (OptimizerKind::Adamw, Some(momentum)) => {
                let expected = "nothing: AdamW has betas, only kind: muon a momentum";
                return Err(ConfigError::value("momentum", momentum, expected));
            }
            (_, momentum) => {
                check_numbers(&[("momentum", momentum.unwrap_or(MOMENTUM), Range::BelowOne)])?
            }
        }
        check_numbers(&[
            ("betas", self.betas[0], Range::BelowOne),
            ("betas", self.betas[1], Range::BelowOne),
            ("weight_decay", self.weight_decay, Range::AtLeastZero),
            ("epsilon", self.epsilon, Range::AboveZero),
        ])
    }
}

/// Both rules with their moments.
pub struct Optimizer {
    constants: AdamWConstants,
    muon: MuonConstants,
    /// The parameters that Muon changes, with the number of matrices in each.
    hidden: BTreeMap<String, i64>,
    /// First moments.
    pub averages: Parameters,
    /// Second moments of the parameters that AdamW changes.
    pub square_averages: Parameters,
    /// Updates made.
    pub updates: u64,
}

impl Optimizer {
    /// Of `config` for `parameters`, of which `matrices` tells the hidden ones.
    pub fn new(
        config: &OptimizerConfig,
        parameters: &Parameters,
        matrices: HiddenMatrices,
    ) -> Self {
        let hidden = match config.kind {
            OptimizerKind::Adamw => BTreeMap::new(),
            OptimizerKind::Muon => hidden(parameters, matrices),
        };
        Optimizer {
            constants: AdamWConstants {
                betas: config.betas,
                weight_decay: config.weight_decay,
                epsilon: config.epsilon,
            },
            muon: MuonConstants {
                momentum: config.momentum.unwrap_or(MOMENTUM),
                weight_decay: config.weight_decay,
            },
            averages: parameters.zeros(),
            square_averages: parameters.only(|name| !hidden.contains_key(name)).zeros(),
            hidden,
            updates: 0,
        }
    }

    /// Updates those of `parameters` that have a gradient at this learning rate.
    pub fn step(&mut self, parameters: &Parameters, rate: f64) {
        self.updates += 1;
        let mut of_muon = Vec::new();
        let mut of_adamw = Vec::new();
        for (name, parameter) in &parameters.tensors {
            let gradient = parameter.grad();
            if !gradient.defined() {
                continue;
            }
            match self.hidden.get(name) {
                Some(matrices) => of_muon.push((name, parameter, gradient, *matrices)),
                None => of_adamw.push((name, parameter, gradient)),
            }
        }
        let slots: Vec<HiddenSlot> = of_muon
            .iter()
            .map(|(name, parameter, gradient, matrices)| HiddenSlot {
                parameter,
                gradient,
                average: &self.averages.tensors[*name],
                matrices: *matrices,
            })
            .collect();
        muon(&slots, rate, &self.muon);
        let slots: Vec<Slot> = of_adamw
            .iter()
            .map(|(name, parameter, gradient)| Slot {
                parameter,
                gradient,
                average: &self.averages.tensors[*name],
                square_average: &self.square_averages.tensors[*name],
            })
            .collect();
        let Some(first) = slots.first() else { return };
        let step = Tensor::from(self.updates as f32).to_device(first.parameter.device());
        fused_adamw(&slots, &step, rate, &self.constants);
    }
}

/// The hidden matrices among `parameters`: those of two dimensions that `matrices` knows.
fn hidden(parameters: &Parameters, matrices: HiddenMatrices) -> BTreeMap<String, i64> {
    let two_dimensional = parameters.tensors.iter().filter(|(_, p)| p.dim() == 2);
    two_dimensional
        .filter_map(|(name, _)| Some((name.clone(), matrices(name)?)))
        .collect()
}

/// Bound on the gradient's L2 norm over all parameters, in the steps start…end − 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradientClipping {
    pub norm: f64,
    /// First step (from 0) that is clipped.
    #[serde(skip_serializing_if = "is_zero")]
    pub start: u64,
    /// First step that is not clipped any more; never if absent. The original has
    /// such a number (5000) and clips on regardless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<u64>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

impl Default for GradientClipping {
    fn default() -> Self {
        GradientClipping {
            norm: 0.5,
            start: 0,
            end: None,
        }
    }
}

impl GradientClipping {
    /// Whether the gradient of the step `step` (from 0) is clipped.
    pub fn applies(&self, step: u64, recipe: Recipe) -> bool {
        let before_end = self.end.is_none_or(|end| step < end);
        match recipe {
            Recipe::Corrected => step >= self.start && before_end,
            Recipe::Official => step >= self.start || before_end,
        }
    }
}

/// L2 norm of all gradients together, of which there is at least one.
pub fn gradient_norm(parameters: &Parameters) -> f64 {
    let norm = foreach::norm(&parameters.gradients());
    norm.to_kind(Kind::Double).double_value(&[])
}

/// Scales all gradients by bound / (norm + 1e-6) if that is below 1, as PyTorch does.
pub fn clip(parameters: &Parameters, norm: f64, bound: f64) {
    let factor = bound / (norm + 1e-6);
    if factor < 1.0 {
        foreach::scale(&parameters.gradients(), factor);
    }
}
