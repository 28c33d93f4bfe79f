//! CLIP image tower: a vision transformer read at its class token.
//!
//! Letters of the shape comments: B pictures, C width, E width of the embedding.

use tch::Tensor;

use super::residual_block::{BlockShape, ClipActivation, ResBlock};
use crate::config_error::ConfigError;
use crate::size::{check_sizes, LARGEST, MOST};
use crate::torch::attention::Mask;
use crate::torch::{norm, Init, LayerNorm, Params};

/// Shape of the image tower.
#[derive(Clone, Debug, PartialEq)]
pub struct VisionConfig {
    /// Width C.
    pub width: i64,
    /// Pre-norm blocks.
    pub layers: i64,
    /// Attention heads.
    pub heads: i64,
    /// Hidden width of the feed-forward parts.
    pub hidden: i64,
    pub activation: ClipActivation,
    /// Pixels a side of a patch.
    pub patch: i64,
    /// Pixels a side of a picture.
    pub picture: i64,
    /// Width E of the embedding.
    pub embedding: i64,
}

impl VisionConfig {
    /// Whether such a tower can be built; the problem if not.
    pub fn check(&self) -> Result<(), ConfigError> {
        check_sizes(&[
            ("width", self.width, LARGEST),
            ("layers", self.layers, MOST),
            ("heads", self.heads, LARGEST),
            ("hidden", self.hidden, LARGEST),
            ("patch", self.patch, MOST),
            ("picture", self.picture, 1 << 13),
            ("embedding", self.embedding, LARGEST),
        ])?;
        if self.width % self.heads != 0 {
            let (heads, width) = (self.heads, self.width);
            let problem = format!("{heads} do not divide width {width}");
            return Err(ConfigError::contradiction("heads", problem));
        }
        Ok(())
    }
}

/// The image tower.
pub struct VisionEncoder {
    patches: Tensor,    // [C, 3, patch, patch]
    class: Tensor,      // [C]
    positions: Tensor,  // [1 + patches, C]
    projection: Tensor, // [C, E]
    ln_pre: LayerNorm,
    blocks: Vec<ResBlock>,
    ln_post: LayerNorm,
    config: VisionConfig,
}

/// What a forward pass gives.
pub struct VisionFeatures {
    /// The class token behind the last norm: `[B, C]`.
    pub pooled: Tensor,
    /// Its projection, of any length: `[B, E]`.
    pub embedding: Tensor,
}

impl VisionEncoder {
    /// Builds the tower from the weights below `p`, spelled as below `visual` in OpenAI's
    /// files.
    pub fn new(p: &Params, config: &VisionConfig) -> Self {
        let (width, patch) = (config.width, config.patch);
        let grid = config.picture / patch;
        let scale = Init::Normal((width as f64).powf(-0.5));
        let shape = BlockShape {
            width,
            heads: config.heads,
            hidden: config.hidden,
            activation: config.activation,
            mask: Mask::Nothing,
        };
        let blocks = p.at("transformer.resblocks");
        VisionEncoder {
            patches: p.at("conv1").get(
                "weight",
                &[width, 3, patch, patch],
                Init::fan_in(3 * patch * patch),
            ),
            class: p.get("class_embedding", &[width], scale),
            positions: p.get("positional_embedding", &[1 + grid * grid, width], scale),
            projection: p.get("proj", &[width, config.embedding], scale),
            ln_pre: LayerNorm::new(&p.at("ln_pre"), width, norm::EPSILON),
            blocks: (0..config.layers)
                .map(|i| ResBlock::new(&blocks.at(i), shape))
                .collect(),
            ln_post: LayerNorm::new(&p.at("ln_post"), width, norm::EPSILON),
            config: config.clone(),
        }
    }

    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// `images` `[B, 3, picture, picture]`, each channel by CLIP's mean and deviation.
    pub fn forward(&self, images: &Tensor) -> VisionFeatures {
        self.forward_observed(images, |_| {})
    }

    /// As [`forward`](Self::forward); `observe` sees all tokens `[B, 1 + patches, C]` before
    /// the first block and behind each.
    pub fn forward_observed(
        &self,
        images: &Tensor,
        mut observe: impl FnMut(&Tensor),
    ) -> VisionFeatures {
        let side = [self.config.patch; 2];
        let patches = images
            .conv2d(&self.patches, None::<Tensor>, side, [0, 0], [1, 1], 1)
            .flatten(2, -1)
            .transpose(1, 2); // [B, patches, C]
        let class = self.class.expand([images.size()[0], 1, -1], false);
        let x = Tensor::cat(&[class, patches], 1) + &self.positions;
        let mut x = self.ln_pre.forward(&x);
        observe(&x);
        for block in &self.blocks {
            x = block.forward(&x);
            observe(&x);
        }
        let pooled = self.ln_post.forward(&x.select(1, 0));
        VisionFeatures {
            embedding: pooled.matmul(&self.projection),
            pooled,
        }
    }
}
