//! Encoder of the codec: picture to latent map.

use tch::Tensor;

use super::config::CodecConfig;
use super::layers::{norm, Conv, Downsample, Middle, Stage};
use crate::torch::norm::GroupNorm;
use crate::torch::Params;

struct Level {
    stages: Vec<Stage>,
    downsample: Option<Downsample>, // none after the last level
}

pub struct Encoder {
    conv_in: Conv,
    levels: Vec<Level>,
    mid: Middle,
    norm_out: GroupNorm,
    conv_out: Conv,
}

impl Encoder {
    pub fn new(p: &Params, config: &CodecConfig) -> Self {
        let last = config.multipliers.len() - 1;
        let mut width = config.channels;
        let mut levels = Vec::new();
        for l in 0..=last {
            let p = p.at("down").at(l);
            let mut stages = Vec::new();
            for n in 0..config.residual_blocks {
                stages.push(Stage::new(&p, config, l, n, width));
                width = config.level_channels(l);
            }
            let downsample = (l != last).then(|| Downsample::new(&p.at("downsample"), width));
            levels.push(Level { stages, downsample });
        }
        Encoder {
            conv_in: Conv::same(&p.at("conv_in"), 3, config.channels),
            levels,
            mid: Middle::new(&p.at("mid"), width, config.norm_groups),
            norm_out: norm(&p.at("norm_out"), width, config.norm_groups),
            conv_out: Conv::same(&p.at("conv_out"), width, config.latent_channels),
        }
    }

    /// `[B, 3, H, W]` in −1…1 → `[B, Z, h, w]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let mut h = self.conv_in.forward(x);
        for level in &self.levels {
            for stage in &level.stages {
                h = stage.forward(&h);
            }
            if let Some(downsample) = &level.downsample {
                h = downsample.forward(&h);
            }
        }
        let h = self.norm_out.forward(&self.mid.forward(&h)).silu_();
        self.conv_out.forward(&h)
    }
}
