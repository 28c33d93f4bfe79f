//! The parts of the model that training evaluates.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::checkpoint::official::{DENOISER, NULL_TEXT, TEXT};
use crate::clip::TextEncoder;
use crate::model::{ModelConfig, NullText};
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

/// Text tower, null embedding and denoiser over trainable weights.
pub struct TrainingModel {
    text: TextEncoder,
    text_training: TextTraining,
    learned_null: Option<Tensor>, // [1, S, C]
    denoiser: Denoiser,
    kind: Kind,
}

impl TrainingModel {
    /// Builds the model. The denoiser's weights enter in the kind of `trained`, by a
    /// cast that gradients flow through to the f32 weights of its source; everything
    /// else stays in f32. `frozen` answers for what is not trained.
    pub fn new(
        trained: &Params,
        frozen: &dyn WeightSource,
        config: &ModelConfig,
        text_training: TextTraining,
    ) -> Self {
        let single = trained.with_kind(Kind::Float);
        let text = match text_training {
            TextTraining::Trained => single.at(TEXT),
            TextTraining::Frozen => Params::new(frozen, trained.device(), Kind::Float).at(TEXT),
        };
        let learned_null = (config.null_text == NullText::Learned).then(|| {
            let shape = [config.denoiser.text_positions, config.denoiser.text_width];
            single
                .get(NULL_TEXT, &shape, Init::Normal(1.0))
                .unsqueeze(0)
        });
        TrainingModel {
            text: TextEncoder::new(&text, &config.text),
            text_training,
            learned_null,
            denoiser: Denoiser::new(&trained.at(DENOISER), &config.denoiser),
            kind: trained.kind(),
        }
    }

    /// Text features `[B, S, C]` f32 of `ids` `[B, S]`, the learned null embedding in
    /// the rows where `dropped` `[B]`. Without one the ids of dropped rows must be the
    /// empty prompt's.
    pub fn features(&self, ids: &Tensor, dropped: &Tensor) -> Tensor {
        let features = match self.text_training {
            TextTraining::Trained => self.text.forward(ids),
            TextTraining::Frozen => tch::no_grad(|| self.text.forward(ids)),
        };
        match &self.learned_null {
            // `where`, so that the embedding gets a gradient (zero) with nothing dropped.
            Some(null) => null.where_self(&dropped.view([-1, 1, 1]), &features),
            None => features,
        }
    }

    /// Logits `[B, L, K]` f32 for `x_t` `[B, L]` at `t` `[B]` under `features`.
    pub fn logits(&self, x_t: &Tensor, t: &Tensor, features: &Tensor) -> Tensor {
        let condition = self.denoiser.condition(&features.to_kind(self.kind));
        self.denoiser.forward(x_t, t, &condition, None)
    }
}
