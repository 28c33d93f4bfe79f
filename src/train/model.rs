//! The parts of the model that training evaluates.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::checkpoint::official::{DENOISER, NULL_TEXT, TEXT};
use crate::clip::TextEncoder;
use crate::model::{ModelConfig, NullText, TextCondition};
use crate::torch::{Init, Params, WeightSource};
use crate::transformer::Denoiser;

/// What happens to the text tower in training.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TextTraining {
    /// Its weights stay, as in the original.
    Frozen,
    /// It is trained with the denoiser.
    Trained,
}

/// Text tower with its null embedding, and denoiser, over trainable weights.
pub struct TrainingModel {
    text: Option<TextPart>,
    denoiser: Denoiser,
}

struct TextPart {
    tower: TextEncoder,
    training: TextTraining,
    learned_null: Option<Tensor>, // [1, S, C]
}

impl TrainingModel {
    /// Builds the model. The denoiser's weights enter in the kind of `trained`, by a
    /// cast that gradients flow through to the f32 weights of its source; everything
    /// else stays in f32. `frozen` answers for what is not trained.
    pub fn new(
        trained: &Params,
        frozen: &dyn WeightSource,
        config: &ModelConfig,
        training: TextTraining,
    ) -> Self {
        let single = trained.with_kind(Kind::Float);
        let text = config.text.as_ref().map(|config| {
            let TextCondition { tower, null } = config;
            let weights = match training {
                TextTraining::Trained => single.at(TEXT),
                TextTraining::Frozen => Params::new(frozen, trained.device(), Kind::Float).at(TEXT),
            };
            let learned_null = (*null == NullText::Learned).then(|| {
                let shape = [tower.context, tower.width];
                let embedding = single.get(NULL_TEXT, &shape, Init::Normal(1.0));
                embedding.unsqueeze(0)
            });
            TextPart {
                tower: TextEncoder::new(&weights, tower),
                training,
                learned_null,
            }
        });
        TrainingModel {
            text,
            denoiser: Denoiser::new(&trained.at(DENOISER), &config.denoiser),
        }
    }

    /// The condition y of a batch: of text ids `[B, S]` their features `[B, S, C]` f32,
    /// of classes `[B]` they themselves. The rows where `dropped` `[B]` get the learned
    /// null embedding or the null class; without a learned embedding the ids of dropped
    /// rows must be the empty prompt's.
    pub fn features(&self, given: &Tensor, dropped: &Tensor) -> Tensor {
        let Some(text) = &self.text else {
            return match self.denoiser.config().condition.null_class() {
                Some(null) => given.masked_fill(dropped, null),
                None => given.shallow_clone(),
            };
        };
        let features = match text.training {
            TextTraining::Trained => text.tower.forward(given),
            TextTraining::Frozen => tch::no_grad(|| text.tower.forward(given)),
        };
        match &text.learned_null {
            // `where`, so that the embedding gets a gradient (zero) with nothing dropped.
            Some(null) => null.where_self(&dropped.view([-1, 1, 1]), &features),
            None => features,
        }
    }

    /// Logits `[B, L, K]` f32 for `x_t` `[B, L]` at `t` `[B]` under `features`.
    pub fn logits(&self, x_t: &Tensor, t: &Tensor, features: &Tensor) -> Tensor {
        let condition = self.denoiser.condition(features);
        self.denoiser.forward(x_t, t, &condition, None)
    }
}
