//! ResNet (arXiv 1512.03385) as torchvision spells it: the classifier by which pictures of
//! classes are accepted or not.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::weights::{load, telling_shape, Loaded};
use crate::checkpoint::{read_tensors, LoadError, StateDict};
use crate::size::{check_sizes, LARGEST, MOST};
use crate::torch::{Init, Params};

const WHAT: &str = "a ResNet of torchvision";
/// Of the batch normalisation.
const EPSILON: f64 = 1e-5;
/// Channels behind the first convolution.
const STEM: i64 = 64;
/// Channels of a bottleneck's output for each of its width.
const EXPANSION: i64 = 4;

/// Shape of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct ResNetConfig {
    /// Blocks of the four stages: 3, 4, 6, 3 of ResNet-50 (and 34), 3, 4, 23, 3 of 101.
    pub blocks: [i64; 4],
    /// Blocks of three convolutions (from ResNet-50 on), not of two.
    pub bottleneck: bool,
    pub classes: i64,
}

impl ResNetConfig {
    /// From the shapes of tensors.
    ///
    /// # Errors
    ///
    /// Tensors of something else.
    pub fn infer(state: &StateDict, path: &Path) -> Result<Self, LoadError> {
        telling_shape(state, path, "layer1.0.conv2.weight", 4, WHAT)?;
        let config = ResNetConfig {
            blocks: [1, 2, 3, 4].map(|stage| state.count_indexed(&format!("layer{stage}."))),
            bottleneck: state.shape("layer1.0.conv3.weight").is_some(),
            classes: telling_shape(state, path, "fc.weight", 2, WHAT)?[0],
        };
        let [a, b, c, d] = config.blocks;
        let sizes = check_sizes(&[
            ("layer1", a, MOST),
            ("layer2", b, MOST),
            ("layer3", c, MOST),
            ("layer4", d, MOST),
            ("classes", config.classes, LARGEST),
        ]);
        sizes.map_err(|e| LoadError::Config {
            path: path.to_path_buf(),
            source: e.of_part(format!("not {WHAT}")),
        })?;
        Ok(config)
    }
}

/// Convolution with the batch normalisation behind it, of fixed statistics, folded into it.
struct Conv {
    weight: Tensor, // [out, in, k, k]
    bias: Tensor,   // [out]
    stride: i64,
}

impl Conv {
    fn new(
        [conv, norm]: [&Params; 2],
        [inputs, outputs]: [i64; 2],
        kernel: i64,
        stride: i64,
    ) -> Self {
        let shape = [outputs, inputs, kernel, kernel];
        let weight = conv.get("weight", &shape, Init::fan_in(inputs * kernel * kernel));
        let of = |name: &str, init| norm.get(name, &[outputs], init).to_kind(Kind::Double);
        let scale = of("weight", Init::Ones) / (of("running_var", Init::Ones) + EPSILON).sqrt();
        let bias = of("bias", Init::Zeros) - of("running_mean", Init::Zeros) * &scale;
        Conv {
            weight: (weight.to_kind(Kind::Double) * scale.view([-1, 1, 1, 1])).to_kind(conv.kind()),
            bias: bias.to_kind(conv.kind()),
            stride,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let padding = self.weight.size()[2] / 2;
        let stride = [self.stride; 2];
        x.conv2d(
            &self.weight,
            Some(&self.bias),
            stride,
            [padding; 2],
            [1, 1],
            1,
        )
    }
}

/// Convolutions beside which the input goes, directly or by one of its own.
struct Block {
    convs: Vec<Conv>,
    beside: Option<Conv>,
}

impl Block {
    fn new(p: &Params, bottleneck: bool, inputs: i64, width: i64, stride: i64) -> Self {
        let conv = |n: usize, channels, kernel, stride| {
            let (conv, norm) = (p.at(format!("conv{n}")), p.at(format!("bn{n}")));
            Conv::new([&conv, &norm], channels, kernel, stride)
        };
        let outputs = if bottleneck { EXPANSION * width } else { width };
        let convs = match bottleneck {
            true => vec![
                conv(1, [inputs, width], 1, 1),
                conv(2, [width, width], 3, stride),
                conv(3, [width, outputs], 1, 1),
            ],
            false => vec![
                conv(1, [inputs, width], 3, stride),
                conv(2, [width, outputs], 3, 1),
            ],
        };
        let beside = (stride != 1 || inputs != outputs).then(|| {
            let p = p.at("downsample");
            Conv::new([&p.at("0"), &p.at("1")], [inputs, outputs], 1, stride)
        });
        Block { convs, beside }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let last = self.convs.len() - 1;
        let inner = self.convs[..last]
            .iter()
            .fold(x.shallow_clone(), |x, conv| conv.forward(&x).relu_());
        let beside = match &self.beside {
            Some(conv) => conv.forward(x),
            None => x.shallow_clone(),
        };
        (self.convs[last].forward(&inner) + beside).relu_()
    }
}

/// The network.
pub struct ResNet {
    stem: Conv,
    blocks: Vec<Block>,
    head: [Tensor; 2], // [classes, C] and [classes]
    config: ResNetConfig,
}

impl ResNet {
    /// Builds the network from the weights below `p`, under torchvision's names.
    pub fn new(p: &Params, config: &ResNetConfig) -> Self {
        let stem = Conv::new([&p.at("conv1"), &p.at("bn1")], [3, STEM], 7, 2);
        let mut channels = STEM;
        let mut blocks = Vec::new();
        for (stage, &count) in (0i64..).zip(&config.blocks) {
            let width = STEM << stage;
            for n in 0..count {
                let stride = if stage > 0 && n == 0 { 2 } else { 1 };
                let p = p.at(format!("layer{}", stage + 1)).at(n);
                let block = Block::new(&p, config.bottleneck, channels, width, stride);
                blocks.push(block);
                channels = if config.bottleneck {
                    EXPANSION * width
                } else {
                    width
                };
            }
        }
        let p = p.at("fc");
        let head = [
            p.get(
                "weight",
                &[config.classes, channels],
                Init::fan_in(channels),
            ),
            p.get("bias", &[config.classes], Init::Zeros),
        ];
        ResNet {
            stem,
            blocks,
            head,
            config: config.clone(),
        }
    }

    /// Loads torchvision's file (`resnet101-63fe2227.pth`, `resnet50-0676ba61.pth` and their
    /// kin).
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is of another network.
    pub fn load(path: &Path, device: Device) -> Result<Loaded<Self>, LoadError> {
        let state = read_tensors(path)?;
        let config = ResNetConfig::infer(&state, path)?;
        load(&state, path, device, known_and_ignored, |p| {
            ResNet::new(p, &config)
        })
    }

    pub fn config(&self) -> &ResNetConfig {
        &self.config
    }

    /// Logits `[B, classes]` of `images` `[B, 3, H, W]`, each channel by ImageNet's mean and
    /// deviation ([`imagenet_square`](crate::metrics::preparation::imagenet_square)).
    pub fn forward(&self, images: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let x = self.stem.forward(images).relu_();
        let x = x.max_pool2d([3, 3], [2, 2], [1, 1], [1, 1], false);
        let x = self.blocks.iter().fold(x, |x, block| block.forward(&x));
        let pooled = x.mean_dim(Some([2i64, 3].as_slice()), false, x.kind()); // [B, C]
        let [weight, bias] = &self.head;
        pooled.matmul(&weight.tr()) + bias
    }
}

/// Why a tensor of such a file does not matter.
pub fn known_and_ignored(name: &str) -> Option<&'static str> {
    name.ends_with("num_batches_tracked")
        .then_some("counts the batches of training")
}
