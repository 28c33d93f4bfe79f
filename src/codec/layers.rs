//! Layers shared by encoder and decoder.

use tch::Tensor;

use super::config::CodecConfig;
use crate::torch::attention::{attend, Mask};
use crate::torch::norm::GroupNorm;
use crate::torch::{Init, Params};

/// Convolution with bias; `weight` `[out, in, k, k]`.
pub struct Conv {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    padding: i64,
}

impl Conv {
    fn new(p: &Params, inputs: i64, outputs: i64, kernel: i64, stride: i64, padding: i64) -> Self {
        let init = Init::fan_in(inputs * kernel * kernel);
        Conv {
            weight: p.get("weight", &[outputs, inputs, kernel, kernel], init),
            bias: p.get("bias", &[outputs], init),
            stride,
            padding,
        }
    }

    /// 3×3, one pixel of zero padding.
    pub fn same(p: &Params, inputs: i64, outputs: i64) -> Self {
        Conv::new(p, inputs, outputs, 3, 1, 1)
    }

    /// 1×1.
    pub fn pointwise(p: &Params, inputs: i64, outputs: i64) -> Self {
        Conv::new(p, inputs, outputs, 1, 1, 0)
    }

    /// `[B, in, H, W]` → `[B, out, H', W']`, in the kind of `x`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (stride, padding) = ([self.stride; 2], [self.padding; 2]);
        let [weight, bias] = [&self.weight, &self.bias].map(|w| w.to_kind(x.kind()));
        x.conv2d(&weight, Some(&bias), stride, padding, [1, 1], 1)
    }
}

/// The group norm of the codec, `groups` of the `channels` each.
pub fn norm(p: &Params, channels: i64, groups: i64) -> GroupNorm {
    GroupNorm::new(p, channels, groups, 1e-6)
}

/// shortcut(x) + conv2(swish(norm2(conv1(swish(norm1(x)))))).
pub struct ResBlock {
    norm1: GroupNorm,
    conv1: Conv,
    norm2: GroupNorm,
    conv2: Conv,
    shortcut: Option<Conv>, // where the width changes
}

impl ResBlock {
    pub fn new(p: &Params, inputs: i64, outputs: i64, groups: i64) -> Self {
        ResBlock {
            norm1: norm(&p.at("norm1"), inputs, groups),
            conv1: Conv::same(&p.at("conv1"), inputs, outputs),
            norm2: norm(&p.at("norm2"), outputs, groups),
            conv2: Conv::same(&p.at("conv2"), outputs, outputs),
            shortcut: (inputs != outputs)
                .then(|| Conv::pointwise(&p.at("nin_shortcut"), inputs, outputs)),
        }
    }

    /// `[B, in, H, W]` → `[B, out, H, W]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.conv1.forward(&self.norm1.forward(x).silu_());
        let h = self.conv2.forward(&self.norm2.forward(&h).silu_());
        match &self.shortcut {
            Some(shortcut) => shortcut.forward(x) + h,
            None => x + h,
        }
    }
}

/// Single-head self-attention over the positions of a feature map, around a residual.
pub struct AttnBlock {
    norm: GroupNorm,
    q: Conv,
    k: Conv,
    v: Conv,
    proj_out: Conv,
}

impl AttnBlock {
    pub fn new(p: &Params, channels: i64, groups: i64) -> Self {
        let conv = |name: &str| Conv::pointwise(&p.at(name), channels, channels);
        AttnBlock {
            norm: norm(&p.at("norm"), channels, groups),
            q: conv("q"),
            k: conv("k"),
            v: conv("v"),
            proj_out: conv("proj_out"),
        }
    }

    /// `[B, C, H, W]` → `[B, C, H, W]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        let size = x.size();
        let rows = |map: Tensor| map.flatten(2, 3).transpose(1, 2); // [B, HW, C]
        let n = self.norm.forward(x);
        let [q, k, v] = [&self.q, &self.k, &self.v].map(|conv| rows(conv.forward(&n)));
        let h = attend(&q, &k, &v, 1, Mask::Nothing); // [B, HW, C]
        let h = h.transpose(1, 2).reshape(size);
        x + self.proj_out.forward(&h)
    }
}

/// Residual block and, at the sides that have it, an attention block behind it.
pub struct Stage {
    pub res: ResBlock,
    pub attn: Option<AttnBlock>,
}

impl Stage {
    /// Block `n` of level `level` of the half at `p`.
    pub fn new(p: &Params, config: &CodecConfig, level: usize, n: i64, inputs: i64) -> Self {
        let (outputs, groups) = (config.level_channels(level), config.norm_groups);
        let attn = || AttnBlock::new(&p.at("attn").at(n), outputs, groups);
        Stage {
            res: ResBlock::new(&p.at("block").at(n), inputs, outputs, groups),
            attn: config.has_attention(level).then(attn),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.res.forward(x);
        self.attn
            .as_ref()
            .map_or(h.shallow_clone(), |a| a.forward(&h))
    }
}

/// The middle at the lowest resolution: residual, attention, residual.
pub struct Middle {
    block_1: ResBlock,
    attn_1: AttnBlock,
    block_2: ResBlock,
}

impl Middle {
    pub fn new(p: &Params, channels: i64, groups: i64) -> Self {
        Middle {
            block_1: ResBlock::new(&p.at("block_1"), channels, channels, groups),
            attn_1: AttnBlock::new(&p.at("attn_1"), channels, groups),
            block_2: ResBlock::new(&p.at("block_2"), channels, channels, groups),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let h = self.attn_1.forward(&self.block_1.forward(x));
        self.block_2.forward(&h)
    }
}

/// Halves the sides: one zero row and column at the bottom and right, then a 3×3
/// convolution of stride 2 (asymmetric, as in the original).
pub struct Downsample(Conv);

impl Downsample {
    pub fn new(p: &Params, channels: i64) -> Self {
        Downsample(Conv::new(&p.at("conv"), channels, channels, 3, 2, 0))
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward(&x.constant_pad_nd([0, 1, 0, 1]))
    }
}

/// Doubles the sides by nearest neighbour, then a 3×3 convolution.
pub struct Upsample(Conv);

impl Upsample {
    pub fn new(p: &Params, channels: i64) -> Self {
        Upsample(Conv::same(&p.at("conv"), channels, channels))
    }

    pub fn forward(&self, x: &Tensor) -> Tensor {
        let (height, width) = (x.size()[2] * 2, x.size()[3] * 2);
        self.0
            .forward(&x.upsample_nearest2d([height, width], None, None))
    }
}
