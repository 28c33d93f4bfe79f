//! Decoder of the codec: latent map to picture.

use tch::Tensor;

use super::config::CodecConfig;
use super::layers::{norm, Conv, Middle, Stage, Upsample};
use crate::torch::norm::GroupNorm;
use crate::torch::Params;

struct Level {
    stages: Vec<Stage>,
    upsample: Option<Upsample>, // none at full resolution
}

pub struct Decoder {
    conv_in: Conv,
    mid: Middle,
    levels: Vec<Level>, // lowest resolution first, the order of execution
    norm_out: GroupNorm,
    conv_out: Conv,
}

impl Decoder {
    pub fn new(p: &Params, config: &CodecConfig) -> Self {
        let last = config.multipliers.len() - 1;
        let lowest = config.level_channels(last);
        let mut width = lowest;
        let mut levels = Vec::new();
        for l in (0..=last).rev() {
            let p = p.at("up").at(l);
            let mut stages = Vec::new();
            for n in 0..=config.residual_blocks {
                stages.push(Stage::new(&p, config, l, n, width));
                width = config.level_channels(l);
            }
            let upsample = (l != 0).then(|| Upsample::new(&p.at("upsample"), width));
            levels.push(Level { stages, upsample });
        }
        Decoder {
            conv_in: Conv::same(&p.at("conv_in"), config.latent_channels, lowest),
            mid: Middle::new(&p.at("mid"), lowest, config.norm_groups),
            levels,
            norm_out: norm(&p.at("norm_out"), width, config.norm_groups),
            conv_out: Conv::same(&p.at("conv_out"), width, 3),
        }
    }

    /// `[B, Z, h, w]` → `[B, 3, H, W]`, about −1…1, not clamped.
    pub fn forward(&self, z: &Tensor) -> Tensor {
        let mut h = self.mid.forward(&self.conv_in.forward(z));
        for level in &self.levels {
            for stage in &level.stages {
                h = stage.forward(&h);
            }
            if let Some(upsample) = &level.upsample {
                h = upsample.forward(&h);
            }
        }
        self.conv_out.forward(&self.norm_out.forward(&h).silu_())
    }
}
