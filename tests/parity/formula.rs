//! Weights made by a formula, for cases too large to ship them.
//!
//! u\[i\] = splitmix64((crc32(salt + name) << 32) + i), i the flat row-major index;
//! s\[i\] = (u >> 11) · 2⁻⁵² − 1, uniform in [−1, 1). By kind of parameter:
//! embedding 0.6 s; matrix (linear and convolution weights) s √(3 / fan_in), fan_in
//! the product of the dimensions after the first; gain (norm weights) 1 + 0.1 s;
//! bias 0.1 s. Computed in f64, then cast to f32.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use rayon::prelude::*;
use serde_json::Value;
use tch::{Device, Kind, Tensor};
use vqdiffusion::torch::{Init, WeightSource};

/// The numbers s of one name.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(salt: &str, name: &str) -> Self {
        let mut crc = flate2::Crc::new();
        crc.update(salt.as_bytes());
        crc.update(name.as_bytes());
        Numbers(u64::from(crc.sum()) << 32)
    }

    pub fn at(&self, i: usize) -> f64 {
        let z = self
            .0
            .wrapping_add(i as u64)
            .wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        (z >> 11) as f64 * 2f64.powi(-52) - 1.0
    }
}

/// The parameters that a case lists, each made when a module asks for it.
pub struct FormulaWeights {
    salt: String,
    listed: BTreeMap<String, (Vec<i64>, String)>, // shape and kind
    asked: RefCell<BTreeSet<String>>,
    problems: RefCell<Vec<String>>,
}

impl FormulaWeights {
    /// `parameters` is the list of `{name, shape, kind}` of reference.json.
    pub fn new(salt: &str, parameters: &Value) -> Self {
        let items = parameters.as_array().into_iter().flatten();
        let listed = items.map(|item| {
            let text = |key: &str| item[key].as_str().unwrap_or_default().to_string();
            let dimensions = item["shape"].as_array().into_iter().flatten();
            let shape = dimensions.filter_map(Value::as_i64).collect();
            (text("name"), (shape, text("kind")))
        });
        FormulaWeights {
            salt: salt.to_string(),
            listed: listed.collect(),
            asked: RefCell::default(),
            problems: RefCell::default(),
        }
    }

    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.listed.get(name).map(|(shape, _)| shape.as_slice())
    }

    /// How many of i = 0, 1 … give the name of a listed parameter.
    pub fn count(&self, name: impl Fn(i64) -> String) -> i64 {
        (0..)
            .take_while(|&i| self.shape(&name(i)).is_some())
            .count() as i64
    }

    /// What went wrong: other shapes than listed, and parameters nobody asked for.
    pub fn problems(&self) -> Vec<String> {
        let asked = self.asked.borrow();
        let unused = self.listed.keys().filter(|name| !asked.contains(*name));
        let unused = unused.map(|name| format!("{name}: no module asks for it"));
        self.problems
            .borrow()
            .iter()
            .cloned()
            .chain(unused)
            .collect()
    }
}

impl WeightSource for FormulaWeights {
    fn weight(&self, name: &str, shape: &[i64], _init: Init) -> Tensor {
        let options = (Kind::Float, Device::Cpu);
        self.asked.borrow_mut().insert(name.to_string());
        let Some((listed, kind)) = self.listed.get(name) else {
            // A part that the case leaves out (the codec's encoder).
            return Tensor::zeros([1], options).expand(shape, false);
        };
        if listed != shape {
            let problem = format!("{name}: asked for as {shape:?}, listed as {listed:?}");
            self.problems.borrow_mut().push(problem);
            return Tensor::zeros(shape, options);
        }
        let numbers = Numbers::new(&self.salt, name);
        let fan_in = shape[1..].iter().product::<i64>() as f64;
        let (offset, factor) = match kind.as_str() {
            "embedding" => (0.0, 0.6),
            "matrix" => (0.0, (3.0 / fan_in).sqrt()),
            "gain" => (1.0, 0.1),
            "bias" => (0.0, 0.1),
            _ => panic!("{name}: unknown kind {kind}"),
        };
        let mut values = vec![0f32; shape.iter().product::<i64>() as usize];
        const RUN: usize = 1 << 16;
        values
            .par_chunks_mut(RUN)
            .enumerate()
            .for_each(|(run, values)| {
                for (i, value) in values.iter_mut().enumerate() {
                    *value = (offset + factor * numbers.at(run * RUN + i)) as f32;
                }
            });
        Tensor::from_slice(&values).view(shape)
    }
}
