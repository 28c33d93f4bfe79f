//! LPIPS 0.1 on VGG16 (arXiv 1801.03924): distance of two pictures by unit-length features
//! at five depths, weighted by trained heads.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::weights::{load, Loaded};
use crate::checkpoint::{read_tensors, LoadError, StateDict};
use crate::torch::{Init, Params};

/// Convolutions of VGG16 up to each tap: places in torchvision's `features`, output
/// channels.
const STAGES: [&[(i64, i64)]; 5] = [
    &[(0, 64), (2, 64)],
    &[(5, 128), (7, 128)],
    &[(10, 256), (12, 256), (14, 256)],
    &[(17, 512), (19, 512), (21, 512)],
    &[(24, 512), (26, 512), (28, 512)],
];
const SHIFT: [f32; 3] = [-0.030, -0.088, -0.188];
const SCALE: [f32; 3] = [0.458, 0.448, 0.450];
const EPSILON: f64 = 1e-10;

struct Conv([Tensor; 2]); // [out, in, 3, 3] and [out]

/// The network; differentiable in both pictures.
pub struct Lpips {
    stages: Vec<Vec<Conv>>,
    heads: Vec<Tensor>, // [1, C, 1, 1]
    input: [Tensor; 2], // shift and scale [1, 3, 1, 1]
}

impl Lpips {
    /// Builds the network from the weights below `p`: VGG16's `features.N`, and the heads
    /// `linN.model.1.weight`.
    pub fn new(p: &Params) -> Self {
        let mut channels = 3;
        let features = p.at("features");
        let mut conv = |&(place, outputs): &(i64, i64)| {
            let p = features.at(place);
            let weights = [
                p.get(
                    "weight",
                    &[outputs, channels, 3, 3],
                    Init::fan_in(9 * channels),
                ),
                p.get("bias", &[outputs], Init::Zeros),
            ];
            channels = outputs;
            Conv(weights)
        };
        let stages: Vec<Vec<Conv>> = STAGES
            .iter()
            .map(|stage| stage.iter().map(&mut conv).collect())
            .collect();
        let heads = STAGES.iter().enumerate().map(|(i, stage)| {
            let shape = [1, stage[0].1, 1, 1];
            p.at(format!("lin{i}.model.1"))
                .get("weight", &shape, Init::Zeros)
        });
        let input = |values: [f32; 3]| {
            Tensor::from_slice(&values)
                .view([1, 3, 1, 1])
                .to_device(p.device())
                .to_kind(p.kind())
        };
        Lpips {
            heads: heads.collect(),
            input: [input(SHIFT), input(SCALE)],
            stages,
        }
    }

    /// Loads VGG16 (torchvision's `vgg16-397923af.pth`) and the heads (the `vgg.pth` of
    /// the package lpips, version 0.1).
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is of something else.
    pub fn load(vgg: &Path, heads: &Path, device: Device) -> Result<Loaded<Self>, LoadError> {
        let mut state = StateDict::default();
        for file in [vgg, heads] {
            for (name, entry) in read_tensors(file)?.iter() {
                state.insert(name, entry.clone());
            }
        }
        let known = |name: &str| match name {
            name if name.starts_with("classifier.") => Some("VGG16's own classes"),
            _ => None,
        };
        load(&state, vgg, device, known, Lpips::new)
    }

    /// The distance `[B]` of pictures `[B, 3, H, W]` in −1…1, sides at least 16.
    pub fn forward(&self, a: &Tensor, b: &Tensor) -> Tensor {
        self.parts(a, b)
            .sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Float)
    }

    /// What each depth adds: `[B, 5]`.
    pub fn parts(&self, a: &Tensor, b: &Tensor) -> Tensor {
        let parts: Vec<Tensor> = self
            .taps(a)
            .iter()
            .zip(self.taps(b))
            .zip(&self.heads)
            .map(|((a, b), head)| {
                let squares = (unit(a) - unit(&b)).square(); // [B, C, h, w]
                (squares * head)
                    .sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Float)
                    .mean_dim(Some([1i64, 2].as_slice()), false, Kind::Float)
            })
            .collect();
        Tensor::stack(&parts, 1)
    }

    /// Features behind the last ReLU of each stage.
    fn taps(&self, image: &Tensor) -> Vec<Tensor> {
        let [shift, scale] = &self.input;
        let mut x = (image - shift) / scale;
        let mut taps = Vec::with_capacity(self.stages.len());
        for (i, stage) in self.stages.iter().enumerate() {
            if i > 0 {
                x = x.max_pool2d([2, 2], [2, 2], [0, 0], [1, 1], false);
            }
            for Conv([weight, bias]) in stage {
                x = x
                    .conv2d(weight, Some(bias), [1, 1], [1, 1], [1, 1], 1)
                    .relu();
            }
            taps.push(x.shallow_clone());
        }
        taps
    }
}

/// Every position's features at unit length.
fn unit(x: &Tensor) -> Tensor {
    let length = x
        .square()
        .sum_dim_intlist(Some([1i64].as_slice()), true, Kind::Float)
        .sqrt();
    x / (length + EPSILON)
}
