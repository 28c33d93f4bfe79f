//! Named weights: a module asks for each tensor by its official name and shape,
//! and a [`WeightSource`] answers from a checkpoint, a formula or an initialiser.

use std::fmt::Display;

use tch::{Device, Kind, Tensor};

/// How the originals initialise a parameter that no checkpoint supplies
/// (`reference`: official `_init_weights`, PyTorch defaults for convolutions).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
    /// Uniform on (−bound, bound).
    Uniform(f64),
    Zeros,
    Ones,
}

impl Init {
    /// PyTorch's default for convolution and its bias: U(±1/√fan_in).
    pub fn fan_in(inputs: i64) -> Self {
        Init::Uniform(1.0 / (inputs as f64).sqrt())
    }
}

/// Where weights come from.
pub trait WeightSource {
    /// The tensor called `name` with exactly this `shape`, on the CPU, of any
    /// floating kind, and the caller's own. A source that cannot supply it records
    /// the problem and returns a [`placeholder`], so that one pass over the modules
    /// finds every problem.
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor;
}

/// A tensor of this shape that takes no memory: one number, seen at all places.
pub fn placeholder(shape: &[i64]) -> Tensor {
    Tensor::zeros([], (Kind::Float, Device::Cpu)).expand(shape, false)
}

/// Whether `weight` is one number seen at all places.
pub fn is_placeholder(weight: &Tensor) -> bool {
    weight.numel() > 1 && weight.stride().iter().all(|&stride| stride == 0)
}

/// A placeholder for every weight: for counting them.
pub struct Placeholders;

impl WeightSource for Placeholders {
    fn weight(&self, _name: &str, shape: &[i64], _init: Init) -> Tensor {
        placeholder(shape)
    }
}

/// A position in the tree of names, with the device and kind to place weights on.
#[derive(Clone)]
pub struct Params<'a> {
    source: &'a dyn WeightSource,
    prefix: String,
    device: Device,
    kind: Kind,
}

impl<'a> Params<'a> {
    /// The root of the tree; every weight is moved to `device` and cast to `kind`.
    pub fn new(source: &'a dyn WeightSource, device: Device, kind: Kind) -> Self {
        Params {
            source,
            prefix: String::new(),
            device,
            kind,
        }
    }

    /// The child called `name` (`blocks`, `0`, `attn1` …); dots nest.
    pub fn at(&self, name: impl Display) -> Self {
        Params {
            prefix: self.name(name),
            ..self.clone()
        }
    }

    /// The same position with another kind for the weights below it.
    pub fn with_kind(&self, kind: Kind) -> Self {
        Params {
            kind,
            ..self.clone()
        }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The weight `name` below this position.
    pub fn get(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let weight = self.source.weight(&self.name(name), shape, init);
        if is_placeholder(&weight) {
            // Moved or cast, it would take the memory of all its places.
            return weight;
        }
        weight.to_device(self.device).to_kind(self.kind)
    }

    fn name(&self, name: impl Display) -> String {
        if self.prefix.is_empty() {
            name.to_string()
        } else {
            format!("{}.{name}", self.prefix)
        }
    }
}

/// Draws every weight from its [`Init`]: what training from nothing and
/// benchmarks start from. The draws follow libtorch's global generator
/// (`tch::manual_seed`).
pub struct RandomWeights;

impl WeightSource for RandomWeights {
    fn weight(&self, _name: &str, shape: &[i64], init: Init) -> Tensor {
        let options = (Kind::Float, Device::Cpu);
        match init {
            Init::Normal(std) => Tensor::randn(shape, options) * std,
            Init::Uniform(bound) => Tensor::empty(shape, options).uniform_(-bound, bound),
            Init::Zeros => Tensor::zeros(shape, options),
            Init::Ones => Tensor::ones(shape, options),
        }
    }
}
