//! The parts of the model that training evaluates.

use std::rc::Rc;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::checkpoint::official::{DENOISER, TEXT};
use crate::clip::TextEncoder;
use crate::data::Batch;
use crate::model::ModelConfig;
use crate::pipeline::learned_null;
use crate::torch::params::Placeholders;
use crate::torch::{Params, WeightSource};
use crate::train::engine::{Parameters, TrainableWeights};
use crate::train::TrainError;
use crate::transformer::{Conditioning, Denoiser, Dropout};

/// What happens to the text tower in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextTraining {
    /// Its weights stay, as in the original.
    Frozen,
    /// It is trained with the denoiser.
    Trained,
}

/// What the condition needs besides trained weights.
pub struct ConditionParts {
    /// The text tower, where there is one and it is not trained.
    frozen_tower: Option<Rc<TextEncoder>>,
    /// Ids of the empty prompt, `[1, S]`, for text models: what stands for a dropped
    /// caption where no null embedding is learned.
    empty_prompt: Option<Tensor>,
    device: Device,
}

impl ConditionParts {
    pub fn new(config: &ModelConfig, frozen_tower: Option<TextEncoder>, device: Device) -> Self {
        let empty_prompt = config.text.as_ref().map(|text| {
            let ids = Tensor::from_slice(&text.tower.empty_prompt());
            ids.unsqueeze(0).to_device(device) // [1, S]
        });
        ConditionParts {
            frozen_tower: frozen_tower.map(Rc::new),
            empty_prompt,
            device,
        }
    }
}

/// Denoiser, text tower and null embedding over trainable weights.
pub struct TrainingModel {
    denoiser: Denoiser,
    text: Option<TextPart>,
    device: Device,
}

struct TextPart {
    tower: Tower,
    learned_null: Option<Tensor>, // [1, S, C]
    empty_prompt: Tensor,         // [1, S]
}

enum Tower {
    Frozen(Rc<TextEncoder>),
    Trained(TextEncoder),
}

impl TrainingModel {
    /// Builds the model over the weights of `params`. The denoiser's enter in its kind,
    /// by a cast that gradients flow through to f32 weights; everything else stays f32.
    pub fn new(params: &Params, parts: &ConditionParts, config: &ModelConfig) -> Self {
        let single = params.with_kind(Kind::Float);
        let text =
            config
                .text
                .as_ref()
                .zip(parts.empty_prompt.as_ref())
                .map(|(text, empty_prompt)| {
                    let tower = match &parts.frozen_tower {
                        Some(tower) => Tower::Frozen(tower.clone()),
                        None => Tower::Trained(TextEncoder::new(&single.at(TEXT), &text.tower)),
                    };
                    TextPart {
                        tower,
                        learned_null: learned_null(&single, text),
                        empty_prompt: empty_prompt.shallow_clone(),
                    }
                });
        TrainingModel {
            denoiser: Denoiser::new(&params.at(DENOISER), &config.denoiser),
            text,
            device: parts.device,
        }
    }

    /// The condition y of a batch on the model's device: text features `[B, S, C]` f32,
    /// classes `[B]`, or for an unconditional model just B rows.
    ///
    /// # Errors
    ///
    /// A batch without what the model is conditioned on.
    pub fn condition(&self, batch: &Batch) -> Result<Tensor, TrainError> {
        let given = match self.denoiser.config().condition {
            Conditioning::Text { .. } => batch.text_ids.as_ref().ok_or("captions"),
            Conditioning::Class { .. } => batch.labels.as_ref().ok_or("labels"),
            Conditioning::Unconditional => {
                let rows = [batch.samples.len() as i64];
                return Ok(Tensor::zeros(rows, (Kind::Int64, self.device)));
            }
        };
        let given = given.map_err(|what| TrainError::NoCondition { what })?;
        let dropped = batch.dropped.to_device(self.device);
        Ok(self.features(&given.to_device(self.device), &dropped))
    }

    /// The condition y of text ids `[B, S]`: their features `[B, S, C]` f32; of classes
    /// `[B]`: they themselves. The rows where `dropped` `[B]` get what stands for none.
    pub fn features(&self, given: &Tensor, dropped: &Tensor) -> Tensor {
        let Some(text) = &self.text else {
            return match self.denoiser.config().condition.null_class() {
                Some(null) => given.masked_fill(dropped, null),
                None => given.shallow_clone(),
            };
        };
        let encode = |ids: &Tensor| match &text.tower {
            Tower::Frozen(tower) => tch::no_grad(|| tower.forward(ids)),
            Tower::Trained(tower) => tower.forward(ids),
        };
        match &text.learned_null {
            // `where`, so that the embedding has a gradient (of zero) with nothing dropped.
            Some(null) => null.where_self(&dropped.view([-1, 1, 1]), &encode(given)),
            None => encode(&text.empty_prompt.where_self(&dropped.unsqueeze(1), given)),
        }
    }

    pub fn denoiser(&self) -> &Denoiser {
        &self.denoiser
    }

    /// Logits `[B, L, K]` f32 for `x_t` `[B, L]` at `t` `[B]` under the condition `y`.
    pub fn logits(
        &self,
        x_t: &Tensor,
        t: &Tensor,
        y: &Tensor,
        dropout: Option<&Dropout>,
    ) -> Tensor {
        let condition = self.denoiser.condition(y);
        self.denoiser.forward_training(x_t, t, &condition, dropout)
    }
}

/// The parts of the condition and the trained weights of `config`, from `source`.
pub fn build(
    config: &ModelConfig,
    text: TextTraining,
    source: &dyn WeightSource,
    device: Device,
) -> (ConditionParts, Parameters) {
    let root = Params::new(source, device, Kind::Float);
    let tower = match (&config.text, text) {
        (Some(text), TextTraining::Frozen) => Some(TextEncoder::new(&root.at(TEXT), &text.tower)),
        _ => None,
    };
    let parts = ConditionParts::new(config, tower, device);
    let trainable = TrainableWeights::new(source, device);
    let params = Params::new(&trainable, device, Kind::Float);
    let _ = TrainingModel::new(&params, &parts, config);
    (parts, trainable.into_parameters())
}

/// How many hidden weight matrices lie in the parameter of this name: those of attention
/// and of the dense layers in the blocks of denoiser and text tower, whose query, key and
/// value are one tensor. Not the linear layers of the adaptive norms.
pub fn hidden_matrices(name: &str) -> Option<i64> {
    let in_block = |blocks: &str| {
        let (_, rest) = name.strip_prefix(blocks)?.split_once('.')?;
        let known = ["attn", "attn1", "attn2", "mlp"];
        let (layer, rest) = rest.split_once('.')?;
        known.contains(&layer).then_some(rest)
    };
    let denoiser = in_block(&format!("{DENOISER}.blocks."));
    match denoiser.or_else(|| in_block(&format!("{TEXT}.transformer.resblocks.")))? {
        "in_proj_weight" => Some(3),
        rest => rest.ends_with(".weight").then_some(1),
    }
}

/// Values that training changes in a model of this shape, and those of a frozen text tower.
pub fn sizes(config: &ModelConfig, text: TextTraining) -> (u64, u64) {
    let (_, trained) = build(config, text, &Placeholders, Device::Cpu);
    let frozen = TrainableWeights::new(&Placeholders, Device::Cpu);
    if let (Some(tower), TextTraining::Frozen) = (&config.text, text) {
        let params = Params::new(&frozen, Device::Cpu, Kind::Float);
        let _ = TextEncoder::new(&params.at(TEXT), &tower.tower);
    }
    (trained.numel(), frozen.into_parameters().numel())
}
