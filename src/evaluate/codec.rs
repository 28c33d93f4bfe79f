//! What an image codec loses, and how it uses its codes.

use serde::Serialize;
use tch::Tensor;

use crate::codec::image_codec::to_bytes;
use crate::codec::usage::perplexity;
use crate::codec::Rounding;
use crate::metrics::networks::Lpips;
use crate::metrics::preparation::symmetric;
use crate::metrics::ssim::{ssim, SsimWindow};
use crate::picture::{psnr, Picture};
use crate::pipeline::LoadedCodec;
use crate::torch::host::values;

/// Figures over the pictures added so far.
pub struct CodecScore<'a> {
    codec: &'a LoadedCodec,
    lpips: Option<&'a Lpips>,
    psnr: Vec<f64>,
    ssim: Vec<[f64; 2]>,
    distances: Vec<f64>,
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
    /// Mean structural similarity, of the paper's window and of scikit-image's usual one; not of
    /// pictures smaller than the window.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim_uniform7: Option<f64>,
    /// Mean LPIPS, if there were weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lpips: Option<f64>,
    /// Codes that occur, of `codes`.
    pub codes_used: usize,
    pub codes: usize,
    /// exp of the entropy of the codes' frequencies.
    pub perplexity: f64,
}

impl<'a> CodecScore<'a> {
    /// Of `codec`; `lpips` lies on its device.
    pub fn new(codec: &'a LoadedCodec, lpips: Option<&'a Lpips>) -> Self {
        CodecScore {
            codec,
            lpips,
            psnr: Vec::new(),
            ssim: Vec::new(),
            distances: Vec::new(),
            usage: vec![0; codec.codes as usize],
        }
    }

    /// Sends `picture`, which has the codec's size, through the codec and back.
    pub fn add(&mut self, picture: &Picture) -> Picture {
        let _no_grad = tch::no_grad_guard();
        let device = self.codec.device;
        let image = picture.to_tensor().unsqueeze(0).to_device(device); // [1, 3, H, W]
        let tokens = self.codec.codec.encode(&image); // [1, L]
        let decoded = self.codec.codec.decode(&tokens, self.codec.grid); // [1, 3, H, W]
        let decoded = Picture::from_tensor(&to_bytes(&decoded, Rounding::Nearest).get(0));
        self.psnr.push(psnr(picture, &decoded));
        let similarity = |window| ssim(picture, &decoded, window).ok();
        let windows = [SsimWindow::Gaussian, SsimWindow::Uniform7].map(similarity);
        if let [Some(gaussian), Some(uniform)] = windows {
            self.ssim.push([gaussian, uniform]);
        }
        if let Some(lpips) = self.lpips {
            let seen = |p: &Picture| symmetric(p).unsqueeze(0).to_device(device);
            let distance: Tensor = lpips.forward(&seen(picture), &seen(&decoded));
            self.distances.push(distance.double_value(&[0]));
        }
        let codes: Vec<i64> = values(&tokens);
        codes
            .iter()
            .for_each(|&code| self.usage[code as usize] += 1);
        decoded
    }

    pub fn scores(&self) -> CodecScores {
        let mean = |values: &mut dyn ExactSizeIterator<Item = f64>| {
            let count = values.len();
            (count > 0).then(|| values.sum::<f64>() / count as f64)
        };
        CodecScores {
            pictures: self.psnr.len(),
            psnr: mean(&mut self.psnr.iter().copied()).unwrap_or(f64::NAN),
            worst_psnr: self.psnr.iter().copied().fold(f64::INFINITY, f64::min),
            ssim: mean(&mut self.ssim.iter().map(|[gaussian, _]| *gaussian)),
            ssim_uniform7: mean(&mut self.ssim.iter().map(|[_, uniform]| *uniform)),
            lpips: mean(&mut self.distances.iter().copied()),
            codes_used: self.usage.iter().filter(|&&count| count > 0).count(),
            codes: self.usage.len(),
            perplexity: perplexity(&self.usage),
        }
    }
}
