//! The Inception network of FID: the graph of 2015-12-05 as pytorch-fid and torch-fidelity
//! spell it (`pt_inception-2015-12-05-6726825d.pth`).
//!
//! It differs from torchvision's Inception v3 in the pooling of its mixed blocks (borders
//! do not count, the last one takes the maximum) and in its 1008 classes.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::weights::{load, telling_shape, Loaded};
use crate::checkpoint::{read_tensors, LoadError};
use crate::torch::{Init, Params};

/// Features of the last pooling layer.
pub const POOL: i64 = 2048;
/// Classes, 8 of them unused.
pub const CLASSES: i64 = 1008;
/// Channels, rows and columns of the features of sFID.
pub const SPATIAL: [i64; 3] = [7, 17, 17];

/// Convolution, batch normalisation of fixed statistics folded into it, ReLU.
struct Conv {
    weight: Tensor, // [out, in, h, w]
    bias: Tensor,   // [out]
    stride: i64,
    padding: [i64; 2],
}

impl Conv {
    /// `channels` in and out, `kernel` rows and columns.
    fn new(
        p: &Params,
        channels: [i64; 2],
        kernel: [i64; 2],
        stride: i64,
        padding: [i64; 2],
    ) -> Self {
        let [inputs, outputs] = channels;
        let shape = [outputs, inputs, kernel[0], kernel[1]];
        let fan_in = Init::fan_in(inputs * kernel[0] * kernel[1]);
        let conv = p
            .at("conv")
            .get("weight", &shape, fan_in)
            .to_kind(Kind::Double);
        let norm = |name: &str, init| p.at("bn").get(name, &[outputs], init).to_kind(Kind::Double);
        let scale = norm("weight", Init::Ones) / (norm("running_var", Init::Ones) + EPSILON).sqrt();
        let bias = norm("bias", Init::Zeros) - norm("running_mean", Init::Zeros) * &scale;
        Conv {
            weight: (conv * scale.view([-1, 1, 1, 1])).to_kind(p.kind()),
            bias: bias.to_kind(p.kind()),
            stride,
            padding,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let stride = [self.stride; 2];
        x.conv2d(
            &self.weight,
            Some(&self.bias),
            stride,
            self.padding,
            [1, 1],
            1,
        )
        .relu_()
    }
}

/// Of the batch normalisation.
const EPSILON: f64 = 1e-3;

/// Convolutions one after the other.
struct Chain(Vec<Conv>);

impl Chain {
    fn forward(&self, x: &Tensor) -> Tensor {
        let first = self.0[0].forward(x);
        self.0[1..].iter().fold(first, |x, conv| conv.forward(&x))
    }
}

/// A convolution of a chain: its name, output channels, kernel and stride. Those of
/// stride 1 keep the size of their input.
struct Link(&'static str, i64, [i64; 2], i64);

fn chain(p: &Params, inputs: i64, links: &[Link]) -> Chain {
    let mut channels = inputs;
    let convs = links.iter().map(|Link(name, outputs, kernel, stride)| {
        let padding = match stride {
            1 => kernel.map(|k| k / 2),
            _ => [0, 0],
        };
        let conv = Conv::new(&p.at(name), [channels, *outputs], *kernel, *stride, padding);
        channels = *outputs;
        conv
    });
    Chain(convs.collect())
}

/// Branches side by side: their outputs become channels one after the other.
enum Branch {
    Chain(Chain),
    /// A chain, then convolutions of its output side by side.
    Split(Chain, [Chain; 2]),
    /// A pooling layer of unchanged size, then a convolution.
    Pooled(Pool, Chain),
    /// The maximum over 3 × 3 at stride 2.
    Reduced,
}

#[derive(Clone, Copy)]
enum Pool {
    /// Mean over 3 × 3, borders left out.
    Mean,
    /// Maximum over 3 × 3.
    Largest,
}

fn largest_3x3(x: &Tensor, stride: i64, padding: i64) -> Tensor {
    x.max_pool2d([3, 3], [stride; 2], [padding; 2], [1, 1], false)
}

impl Branch {
    fn forward(&self, x: &Tensor) -> Vec<Tensor> {
        match self {
            Branch::Chain(chain) => vec![chain.forward(x)],
            Branch::Split(chain, ends) => {
                let x = chain.forward(x);
                ends.iter().map(|end| end.forward(&x)).collect()
            }
            Branch::Pooled(pool, chain) => {
                let pooled = match pool {
                    Pool::Mean => x.avg_pool2d([3, 3], [1, 1], [1, 1], false, false, None),
                    Pool::Largest => largest_3x3(x, 1, 1),
                };
                vec![chain.forward(&pooled)]
            }
            Branch::Reduced => vec![largest_3x3(x, 2, 0)],
        }
    }
}

struct Mixed(Vec<Branch>);

impl Mixed {
    fn forward(&self, x: &Tensor) -> Tensor {
        let parts: Vec<Tensor> = self.0.iter().flat_map(|branch| branch.forward(x)).collect();
        Tensor::cat(&parts, 1)
    }

    /// 35 × 35: `Mixed_5b` to `5d`.
    fn a(p: &Params, inputs: i64, pooled: i64) -> Self {
        let chain = |links: &[Link]| chain(p, inputs, links);
        Mixed(vec![
            Branch::Chain(chain(&[Link("branch1x1", 64, [1, 1], 1)])),
            Branch::Chain(chain(&[
                Link("branch5x5_1", 48, [1, 1], 1),
                Link("branch5x5_2", 64, [5, 5], 1),
            ])),
            Branch::Chain(chain(&[
                Link("branch3x3dbl_1", 64, [1, 1], 1),
                Link("branch3x3dbl_2", 96, [3, 3], 1),
                Link("branch3x3dbl_3", 96, [3, 3], 1),
            ])),
            Branch::Pooled(Pool::Mean, chain(&[Link("branch_pool", pooled, [1, 1], 1)])),
        ])
    }

    /// 35 × 35 to 17 × 17: `Mixed_6a`.
    fn b(p: &Params, inputs: i64) -> Self {
        let chain = |links: &[Link]| chain(p, inputs, links);
        Mixed(vec![
            Branch::Chain(chain(&[Link("branch3x3", 384, [3, 3], 2)])),
            Branch::Chain(chain(&[
                Link("branch3x3dbl_1", 64, [1, 1], 1),
                Link("branch3x3dbl_2", 96, [3, 3], 1),
                Link("branch3x3dbl_3", 96, [3, 3], 2),
            ])),
            Branch::Reduced,
        ])
    }

    /// 17 × 17: `Mixed_6b` to `6e`, with `inner` channels in the long branches.
    fn c(p: &Params, inner: i64) -> Self {
        let chain = |links: &[Link]| chain(p, 768, links);
        Mixed(vec![
            Branch::Chain(chain(&[Link("branch1x1", 192, [1, 1], 1)])),
            Branch::Chain(chain(&[
                Link("branch7x7_1", inner, [1, 1], 1),
                Link("branch7x7_2", inner, [1, 7], 1),
                Link("branch7x7_3", 192, [7, 1], 1),
            ])),
            Branch::Chain(chain(&[
                Link("branch7x7dbl_1", inner, [1, 1], 1),
                Link("branch7x7dbl_2", inner, [7, 1], 1),
                Link("branch7x7dbl_3", inner, [1, 7], 1),
                Link("branch7x7dbl_4", inner, [7, 1], 1),
                Link("branch7x7dbl_5", 192, [1, 7], 1),
            ])),
            Branch::Pooled(Pool::Mean, chain(&[Link("branch_pool", 192, [1, 1], 1)])),
        ])
    }

    /// 17 × 17 to 8 × 8: `Mixed_7a`.
    fn d(p: &Params) -> Self {
        let chain = |links: &[Link]| chain(p, 768, links);
        Mixed(vec![
            Branch::Chain(chain(&[
                Link("branch3x3_1", 192, [1, 1], 1),
                Link("branch3x3_2", 320, [3, 3], 2),
            ])),
            Branch::Chain(chain(&[
                Link("branch7x7x3_1", 192, [1, 1], 1),
                Link("branch7x7x3_2", 192, [1, 7], 1),
                Link("branch7x7x3_3", 192, [7, 1], 1),
                Link("branch7x7x3_4", 192, [3, 3], 2),
            ])),
            Branch::Reduced,
        ])
    }

    /// 8 × 8: `Mixed_7b` and `7c`.
    fn e(p: &Params, inputs: i64, pool: Pool) -> Self {
        let of = |inputs: i64, links: &[Link]| chain(p, inputs, links);
        let ends = |wide: &'static str, tall: &'static str| {
            [
                of(384, &[Link(wide, 384, [1, 3], 1)]),
                of(384, &[Link(tall, 384, [3, 1], 1)]),
            ]
        };
        Mixed(vec![
            Branch::Chain(of(inputs, &[Link("branch1x1", 320, [1, 1], 1)])),
            Branch::Split(
                of(inputs, &[Link("branch3x3_1", 384, [1, 1], 1)]),
                ends("branch3x3_2a", "branch3x3_2b"),
            ),
            Branch::Split(
                of(
                    inputs,
                    &[
                        Link("branch3x3dbl_1", 448, [1, 1], 1),
                        Link("branch3x3dbl_2", 384, [3, 3], 1),
                    ],
                ),
                ends("branch3x3dbl_3a", "branch3x3dbl_3b"),
            ),
            Branch::Pooled(pool, of(inputs, &[Link("branch_pool", 192, [1, 1], 1)])),
        ])
    }
}

/// What a forward pass gives for B pictures.
pub struct InceptionFeatures {
    /// `[B, 2048]`: the last pooling layer (FID, KID, precision and recall).
    pub pool: Tensor,
    /// `[B, 7, 17, 17]`: the first channels of `Mixed_6d` (sFID; `mixed_6/conv` of the
    /// TensorFlow graph).
    pub spatial: Tensor,
}

/// The network.
pub struct Inception {
    stem: [Conv; 3],
    middle: [Conv; 2],
    mixed_5: [Mixed; 3],
    mixed_6: [Mixed; 5],
    mixed_7: [Mixed; 3],
    classes: Tensor, // [1008, 2048]
}

impl Inception {
    /// Builds the network from the weights below `p`.
    pub fn new(p: &Params) -> Self {
        let conv = |name: &str, channels, kernel: i64, stride, padding: i64| {
            Conv::new(&p.at(name), channels, [kernel; 2], stride, [padding; 2])
        };
        Inception {
            stem: [
                conv("Conv2d_1a_3x3", [3, 32], 3, 2, 0),
                conv("Conv2d_2a_3x3", [32, 32], 3, 1, 0),
                conv("Conv2d_2b_3x3", [32, 64], 3, 1, 1),
            ],
            middle: [
                conv("Conv2d_3b_1x1", [64, 80], 1, 1, 0),
                conv("Conv2d_4a_3x3", [80, 192], 3, 1, 0),
            ],
            mixed_5: [
                Mixed::a(&p.at("Mixed_5b"), 192, 32),
                Mixed::a(&p.at("Mixed_5c"), 256, 64),
                Mixed::a(&p.at("Mixed_5d"), 288, 64),
            ],
            mixed_6: [
                Mixed::b(&p.at("Mixed_6a"), 288),
                Mixed::c(&p.at("Mixed_6b"), 128),
                Mixed::c(&p.at("Mixed_6c"), 160),
                Mixed::c(&p.at("Mixed_6d"), 160),
                Mixed::c(&p.at("Mixed_6e"), 192),
            ],
            mixed_7: [
                Mixed::d(&p.at("Mixed_7a")),
                Mixed::e(&p.at("Mixed_7b"), 1280, Pool::Mean),
                Mixed::e(&p.at("Mixed_7c"), 2048, Pool::Largest),
            ],
            classes: p
                .at("fc")
                .get("weight", &[CLASSES, POOL], Init::fan_in(POOL)),
        }
    }

    /// Loads `pt_inception-2015-12-05-6726825d.pth`, or the same tensors as safetensors.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is of another network.
    pub fn load(path: &Path, device: Device) -> Result<Loaded<Self>, LoadError> {
        let state = read_tensors(path)?;
        const WHAT: &str = "FID's Inception network (pt_inception-2015-12-05-6726825d.pth)";
        telling_shape(&state, path, "Conv2d_1a_3x3.conv.weight", 4, WHAT)?;
        let classes = telling_shape(&state, path, "fc.weight", 2, WHAT)?[0];
        if classes != CLASSES {
            return Err(LoadError::Format {
                path: path.to_path_buf(),
                problem: format!(
                    "not {WHAT}: {classes} classes, expected {CLASSES} (torchvision's network \
                     of 1000 classes gives other features)"
                ),
            });
        }
        load(&state, path, device, known_and_ignored, Inception::new)
    }

    /// `images` `[B, 3, 299, 299]` as [`InceptionResize`](crate::metrics::preparation::InceptionResize)
    /// prepares them.
    pub fn forward(&self, images: &Tensor) -> InceptionFeatures {
        self.forward_observed(images, |_| {})
    }

    /// As [`forward`](Self::forward); `observe` sees the features of the four depths that
    /// pytorch-fid offers: behind the first and the second pooling, behind `Mixed_6e`, and
    /// the last pooling.
    pub fn forward_observed(
        &self,
        images: &Tensor,
        mut observe: impl FnMut(&Tensor),
    ) -> InceptionFeatures {
        let _no_grad = tch::no_grad_guard();
        let through = |convs: &[Conv], x: &Tensor| {
            let first = convs[0].forward(x);
            convs[1..].iter().fold(first, |x, conv| conv.forward(&x))
        };
        let x = largest_3x3(&through(&self.stem, images), 2, 0); // [B, 64, 73, 73]
        observe(&x);
        let mut x = largest_3x3(&through(&self.middle, &x), 2, 0); // [B, 192, 35, 35]
        observe(&x);
        for mixed in &self.mixed_5 {
            x = mixed.forward(&x);
        }
        let [reduce, b, c, d, e] = &self.mixed_6;
        let x = d.forward(&c.forward(&b.forward(&reduce.forward(&x)))); // [B, 768, 17, 17]
        let spatial = x.narrow(1, 0, SPATIAL[0]).contiguous();
        let mut x = e.forward(&x);
        observe(&x);
        for mixed in &self.mixed_7 {
            x = mixed.forward(&x);
        }
        let pool = x.mean_dim(Some([2i64, 3].as_slice()), false, x.kind()); // [B, 2048]
        observe(&pool);
        InceptionFeatures { pool, spatial }
    }

    /// Class logits `[B, 1008]` without bias, as the Inception score takes them, of pool
    /// features `[B, 2048]`.
    pub fn logits(&self, pool: &Tensor) -> Tensor {
        pool.linear(&self.classes, None::<&Tensor>)
    }
}

/// Why a tensor of such a file does not matter.
pub fn known_and_ignored(name: &str) -> Option<&'static str> {
    match name {
        "fc.bias" => Some("the Inception score takes logits without bias"),
        name if name.ends_with("num_batches_tracked") => Some("counts training steps"),
        name if name.starts_with("AuxLogits.") => Some("for training"),
        _ => None,
    }
}
