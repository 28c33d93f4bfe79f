//! Dropout of attention weights and of what the parts of a block add to the residual
//! (`attn_pdrop`, `resid_pdrop`), in training alone.
//!
//! Which values are dropped is a function of the seed, the sample's number in the run, the
//! layer, the place in it and the value's index: the same in whatever batch or process the
//! sample is, and again where a block is evaluated once more.

use rand_chacha::rand_core::RngCore;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use crate::random::{sample_generator, TrainingDraw};

/// Shares of values that are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DropoutRates {
    /// Of the attention weights, behind the softmax (`attn_pdrop`).
    pub attention: f64,
    /// Of what attention and feed-forward part give, before it is added (`resid_pdrop`).
    pub residual: f64,
}

impl DropoutRates {
    /// Whether nothing is dropped.
    pub fn is_none(&self) -> bool {
        *self == DropoutRates::default()
    }
}

/// A place in a block where values are dropped; part of a mask's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// The weights of self-attention.
    SelfWeights = 0,
    /// What self-attention gives.
    SelfOutput = 1,
    /// The weights of attention to the text.
    TextWeights = 2,
    /// What attention to the text gives.
    TextOutput = 3,
    /// What the feed-forward part gives.
    FeedForward = 4,
}

const PLACES: usize = 5;

/// The masks of a batch of B samples, by layer and place.
pub struct Dropout {
    rates: DropoutRates,
    /// Of each sample, place and layer: `[layers][PLACES][B]`.
    keys: Vec<[Vec<u64>; PLACES]>,
}

impl Dropout {
    /// Of the samples of these numbers in the run of this seed.
    pub fn new(rates: DropoutRates, seed: u64, samples: &[u64], layers: usize) -> Self {
        let mut keys = vec![<[Vec<u64>; PLACES]>::default(); layers];
        for &sample in samples {
            let mut generator = sample_generator(seed, sample, TrainingDraw::Mask);
            for of_place in keys.iter_mut().flatten() {
                of_place.push(generator.next_u64());
            }
        }
        Dropout { rates, keys }
    }

    /// Those of the layer with this index.
    pub fn layer(&self, layer: usize) -> LayerDropout<'_> {
        LayerDropout {
            rates: self.rates,
            keys: &self.keys[layer],
        }
    }
}

/// The masks of a layer.
#[derive(Clone, Copy)]
pub struct LayerDropout<'a> {
    rates: DropoutRates,
    keys: &'a [Vec<u64>; PLACES],
}

impl LayerDropout<'_> {
    /// Whether attention weights are dropped.
    pub fn drops_weights(&self) -> bool {
        self.rates.attention > 0.0
    }

    /// Attention weights `[B, H, N, M]` with some dropped.
    pub fn weights(&self, weights: &Tensor, place: Place) -> Tensor {
        self.dropped(weights, self.rates.attention, place)
    }

    /// residual + y with some of y dropped, `[B, L, D]` both.
    pub fn add(&self, y: &Tensor, residual: &Tensor, place: Place) -> Tensor {
        residual + self.dropped(y, self.rates.residual, place)
    }

    /// x m / (1 − rate), where m is 0 at dropped values and 1 elsewhere.
    fn dropped(&self, x: &Tensor, rate: f64, place: Place) -> Tensor {
        if rate == 0.0 {
            return x.shallow_clone();
        }
        let kept = kept(&self.keys[place as usize], &x.size(), rate, x.device());
        x * kept * (1.0 / (1.0 - rate))
    }
}

/// Whether each value of a tensor of shape `size` `[B, …]` is kept, bool: value n of sample b
/// by [`word`] n of key b.
pub fn kept(keys: &[u64], size: &[i64], rate: f64, device: Device) -> Tensor {
    let values = size[1..].iter().product::<i64>();
    let least = ((rate * 2f64.powi(32)) as i64 - (1 << 31)) as i32;
    let kept = match device {
        Device::Cpu => kept_on_cpu(keys, values as usize, least),
        _ => kept_by_operators(keys, values, least, device),
    };
    kept.view(size)
}

fn kept_on_cpu(keys: &[u64], values: usize, least: i32) -> Tensor {
    let mut kept = vec![false; keys.len() * values];
    let rows = kept.par_chunks_mut(values.max(1)).zip(keys);
    rows.for_each(|(row, &key)| {
        for (n, kept) in row.iter_mut().enumerate() {
            *kept = word(key, n as u32) as i32 >= least;
        }
    });
    Tensor::from_slice(&kept)
}

const FACTORS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];

/// Number n of the sequence of a key: a permutation of 32 bits in which each bit of n and of
/// the key changes half of the result's (Wellons' `lowbias32`, with the key's halves added
/// before each of its rounds).
pub fn word(key: u64, n: u32) -> u32 {
    let mut x = n ^ key as u32;
    x ^= x >> 16;
    x = x.wrapping_mul(FACTORS[0]) ^ (key >> 32) as u32;
    x ^= x >> 15;
    x = x.wrapping_mul(FACTORS[1]);
    x ^ x >> 16
}

/// As `kept_on_cpu`, `[B, values]`, in the operators of any device. Products of int32 wrap.
pub fn kept_by_operators(keys: &[u64], values: i64, least: i32, device: Device) -> Tensor {
    let halves = |shift: u32| {
        let half: Vec<i32> = keys.iter().map(|key| (key >> shift) as i32).collect();
        Tensor::from_slice(&half).to_device(device).unsqueeze(1) // [B, 1]
    };
    let folded = |x: Tensor, bits: i64| {
        let high = x.bitwise_right_shift_tensor_scalar(bits);
        x.bitwise_xor_tensor(&high.bitwise_and((1i64 << (32 - bits)) - 1))
    };
    let n = Tensor::arange(values, (Kind::Int, device)).unsqueeze(0);
    let x = folded(n.bitwise_xor_tensor(&halves(0)), 16);
    let x = (x * i64::from(FACTORS[0] as i32)).bitwise_xor_tensor(&halves(32));
    let x = folded(x, 15) * i64::from(FACTORS[1] as i32);
    folded(x, 16).ge(i64::from(least))
}
