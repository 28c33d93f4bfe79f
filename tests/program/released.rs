//! Shapes of the original's published models, from its configuration files.

use vqdiffusion::codec::config::RELEASED_GROUPS;
use vqdiffusion::codec::{CodecConfig, QuantizerKind};
use vqdiffusion::transformer::config::{
    Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use vqdiffusion::transformer::{Conditioning, DenoiserConfig, NullClass};

/// VQ-Diffusion-B and -F: COCO, CUB-200, Conceptual Captions (`configs/coco.yaml`).
pub fn base() -> DenoiserConfig {
    DenoiserConfig {
        layers: 19,
        width: 1024,
        heads: 16,
        codes: 2887,
        grid: [32, 32],
        position_table: [32, 32],
        position_weights: PositionWeights::Embedding,
        timesteps: 100,
        timestep_embedding: IndexEmbedding::Table,
        timestep_norm: AdaptiveNorm::Layer,
        feed_forward: FeedForwardKind::Fc,
        activation: Activation::Gelu2,
        expansion: 4,
        condition: Conditioning::Text {
            positions: 77,
            width: 512,
        },
    }
}

/// VQ-Diffusion-S (`configs/cub200_s.yaml` of the first repository).
pub fn small() -> DenoiserConfig {
    DenoiserConfig {
        layers: 18,
        width: 192,
        feed_forward: FeedForwardKind::Conv,
        expansion: 2,
        ..base()
    }
}

/// VQ-Diffusion-L: ITHQ-200M (`configs/ithq.yaml`).
pub fn large() -> DenoiserConfig {
    DenoiserConfig {
        layers: 36,
        width: 1408,
        codes: 4096,
        ..base()
    }
}

/// ImageNet (`configs/imagenet.yaml`), with a learned null class or without. The position
/// table is larger than the grid.
pub fn imagenet(null: NullClass) -> DenoiserConfig {
    DenoiserConfig {
        layers: 24,
        width: 512,
        codes: 974,
        grid: [16, 16],
        feed_forward: FeedForwardKind::Conv,
        condition: Conditioning::class(1000, null),
        ..base()
    }
}

/// FFHQ (`configs/ffhq.yaml`); the position table is larger than the grid here too.
pub fn ffhq() -> DenoiserConfig {
    DenoiserConfig {
        layers: 20,
        codes: 1024,
        condition: Conditioning::Unconditional,
        ..imagenet(NullClass::Mean)
    }
}

/// The OpenImages f8 Gumbel VQGAN of COCO, CUB-200 and Conceptual Captions
/// (`taming_f8_8192_openimages.yaml`).
pub fn openimages_f8() -> CodecConfig {
    CodecConfig {
        resolution: 256,
        channels: 128,
        multipliers: vec![1, 1, 2, 4],
        residual_blocks: 2,
        attention_resolutions: vec![32],
        latent_channels: 256,
        embedding_width: 256,
        codebook: 8192,
        quantizer: QuantizerKind::Gumbel,
        norm_groups: RELEASED_GROUPS,
    }
}

/// The f16 VQGAN of ImageNet (`vqgan_imagenet_f16_16384.yaml`).
pub fn imagenet_f16() -> CodecConfig {
    CodecConfig {
        multipliers: vec![1, 1, 2, 2, 4],
        attention_resolutions: vec![16],
        codebook: 16384,
        quantizer: QuantizerKind::Vector,
        ..openimages_f8()
    }
}

/// The f16 VQGAN of FFHQ (`vqgan_ffhq_f16_1024.yaml`).
pub fn ffhq_f16() -> CodecConfig {
    CodecConfig {
        codebook: 1024,
        ..imagenet_f16()
    }
}

/// The f8 VQ-VAE of ITHQ.
pub fn ithq_f8() -> CodecConfig {
    CodecConfig {
        channels: 64,
        multipliers: vec![1, 2, 4, 8],
        embedding_width: 128,
        codebook: 4096,
        quantizer: QuantizerKind::Ema,
        ..openimages_f8()
    }
}
