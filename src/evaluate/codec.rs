//! What an image codec loses, and how it uses its codes.

use serde::Serialize;

use crate::codec::image_codec::to_bytes;
use crate::codec::usage::perplexity;
use crate::codec::Rounding;
use crate::picture::{psnr, Picture};
use crate::pipeline::LoadedCodec;
use crate::torch::host::values;

/// Figures over the pictures added so far.
pub struct CodecScore {
    psnr: Vec<f64>,
    usage: Vec<u64>,
}

/// Figures of a codec over a data set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CodecScores {
    pub pictures: usize,
    /// Mean over the pictures of the peak signal-to-noise ratio of 8-bit RGB, in dB.
    pub psnr: f64,
    /// The same of the picture that fares worst.
    pub worst_psnr: f64,
    /// Codes that occur, of `codes`.
    pub codes_used: usize,
    pub codes: usize,
    /// exp of the entropy of the codes' frequencies.
    pub perplexity: f64,
}

impl CodecScore {
    pub fn new(codec: &LoadedCodec) -> Self {
        CodecScore {
            psnr: Vec::new(),
            usage: vec![0; codec.codes as usize],
        }
    }

    /// Sends `picture`, which has the codec's size, through `codec` and back.
    pub fn add(&mut self, codec: &LoadedCodec, picture: &Picture) {
        let _no_grad = tch::no_grad_guard();
        let image = picture.to_tensor().unsqueeze(0).to_device(codec.device); // [1, 3, H, W]
        let tokens = codec.codec.encode(&image); // [1, L]
        let decoded = codec.codec.decode(&tokens, codec.grid); // [1, 3, H, W]
        let decoded = Picture::from_tensor(&to_bytes(&decoded, Rounding::Nearest).get(0));
        self.psnr.push(psnr(picture, &decoded));
        let codes: Vec<i64> = values(&tokens);
        codes
            .iter()
            .for_each(|&code| self.usage[code as usize] += 1);
    }

    pub fn scores(&self) -> CodecScores {
        CodecScores {
            pictures: self.psnr.len(),
            psnr: self.psnr.iter().sum::<f64>() / self.psnr.len() as f64,
            worst_psnr: self.psnr.iter().copied().fold(f64::INFINITY, f64::min),
            codes_used: self.usage.iter().filter(|&&count| count > 0).count(),
            codes: self.usage.len(),
            perplexity: perplexity(&self.usage),
        }
    }
}
