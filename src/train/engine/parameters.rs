//! The trained tensors: leaf tensors by their canonical name, answering a model's
//! requests for weights so that gradients flow to them.

use std::cell::RefCell;
use std::collections::BTreeMap;

use tch::{Device, Kind, Tensor};

use crate::torch::foreach::forget_gradients;
use crate::torch::{Init, Params, WeightSource};

/// Hands out weights of another source as trainable leaves on `device`, and keeps them.
pub struct TrainableWeights<'a> {
    source: &'a dyn WeightSource,
    device: Device,
    leaves: RefCell<BTreeMap<String, Tensor>>,
}

impl<'a> TrainableWeights<'a> {
    pub fn new(source: &'a dyn WeightSource, device: Device) -> Self {
        TrainableWeights {
            source,
            device,
            leaves: RefCell::default(),
        }
    }

    /// The leaves handed out, f32.
    pub fn into_parameters(self) -> Parameters {
        Parameters {
            tensors: self.leaves.into_inner(),
        }
    }
}

impl WeightSource for TrainableWeights<'_> {
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let mut leaves = self.leaves.borrow_mut();
        let leaf = leaves.entry(name.to_string()).or_insert_with(|| {
            Params::new(self.source, self.device, Kind::Float)
                .get(name, shape, init)
                .set_requires_grad(true)
        });
        leaf.shallow_clone()
    }
}

impl WeightSource for Parameters {
    /// # Panics
    ///
    /// If the model asks for a weight that it did not have when the parameters were made.
    fn weight(&self, name: &str, _shape: &[i64], _init: Init) -> Tensor {
        self.tensors[name].shallow_clone()
    }
}

/// Named f32 tensors in the order of their names.
#[derive(Debug, Default)]
pub struct Parameters {
    pub tensors: BTreeMap<String, Tensor>,
}

impl Parameters {
    /// Number of values in all tensors.
    pub fn numel(&self) -> u64 {
        self.tensors.values().map(|t| t.numel() as u64).sum()
    }

    /// Those whose names fit, sharing the memory.
    pub fn only(&self, fits: impl Fn(&str) -> bool) -> Parameters {
        let entries = self.tensors.iter().filter(|(name, _)| fits(name));
        Parameters {
            tensors: entries
                .map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))
                .collect(),
        }
    }

    /// Same names and shapes, detached copies.
    pub fn copied(&self) -> Parameters {
        self.map(|t| t.detach().copy())
    }

    /// Same names and shapes, zeros.
    pub fn zeros(&self) -> Parameters {
        self.map(|t| t.detach().zeros_like())
    }

    fn map(&self, f: impl Fn(&Tensor) -> Tensor) -> Parameters {
        let entries = self.tensors.iter().map(|(name, t)| (name.clone(), f(t)));
        Parameters {
            tensors: entries.collect(),
        }
    }

    /// The gradients of those tensors that have one.
    pub fn gradients(&self) -> Vec<Tensor> {
        let gradients = self.tensors.values().map(Tensor::grad);
        gradients.filter(Tensor::defined).collect()
    }

    /// Forgets all gradients.
    pub fn clear_gradients(&self) {
        let tensors: Vec<&Tensor> = self.tensors.values().collect();
        forget_gradients(&tensors);
    }
}
