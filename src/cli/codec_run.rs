//! What the commands that use the image codec alone have in common.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use tch::{Device, Tensor};

use super::arguments::whole;
use super::compute::ComputeArgs;
use super::model_source::ModelSource;
use crate::codec::QuantizerKind;
use crate::diffusion::noise::Draw;
use crate::diffusion::{HostNoise, Noise};
use crate::picture::{read_picture, Picture};
use crate::pipeline::LoadedCodec;

#[derive(Args)]
pub struct CodecArgs {
    /// Pictures (PNG, JPEG, WebP, GIF) of any size: scaled to the model's, the middle cut out.
    #[arg(value_name = "IMAGE", required = true)]
    pub images: Vec<PathBuf>,

    /// Model or codec: an official .pth (whole or split), our .safetensors, a diffusers folder, or
    /// its name on the Hugging Face Hub.
    #[arg(long, value_name = "PATH")]
    checkpoint: PathBuf,

    #[command(flatten)]
    model: ModelSource,

    /// Draw each code from the quantizer's distribution, as in the original's
    /// training, instead of taking the likeliest; Gumbel codecs only.
    #[arg(long)]
    pub sampled: bool,

    /// Seed of the first image's draws; image i has seed + i [default: 0].
    #[arg(long, value_parser = whole::<u64>(0..=u64::MAX))]
    pub seed: Option<u64>,

    #[command(flatten)]
    compute: ComputeArgs,
}

impl CodecArgs {
    /// Loads the codec, for pictures of another `resolution` where one is given.
    pub fn codec(&self, resolution: Option<i64>) -> Result<LoadedCodec, Box<dyn Error>> {
        let device = self.compute.set_up()?;
        let mut file = self.model.open_codec(&self.checkpoint)?;
        if let Some(resolution) = resolution {
            file.set_resolution(resolution)
                .map_err(|e| format!("--resolution {resolution}: {e}"))?;
        }
        if self.sampled && file.config.quantizer != QuantizerKind::Gumbel {
            return Err(format!(
                "--sampled: {} has a codec that takes the nearest code; only a Gumbel \
                 quantizer has a distribution to draw from",
                self.checkpoint.display()
            )
            .into());
        }
        Ok(LoadedCodec::load(&file, device)?)
    }

    /// Image `i`, scaled and cut to the codec's size, and its tokens int64 `[1, L]`.
    pub fn encode(
        &self,
        codec: &LoadedCodec,
        i: usize,
    ) -> Result<(Picture, Tensor), Box<dyn Error>> {
        if self.seed.is_some() && !self.sampled {
            return Err("--seed: nothing is drawn without --sampled".into());
        }
        let [height, width] = codec.picture_size().map(|side| side as u32);
        let picture = read_picture(&self.images[i])?.cover(width, height);
        let image = picture.to_tensor().unsqueeze(0).to_device(codec.device);
        let _no_grad = tch::no_grad_guard();
        let tokens = if self.sampled {
            let seed = self.seed.unwrap_or(0).wrapping_add(i as u64);
            let shape = [1, codec.tokens(), codec.codec.config().codebook];
            let e = HostNoise::new(&[seed]).exponential(0, Draw::Encode, &shape);
            codec
                .codec
                .encode_sampled(&image, &e.to_device(codec.device))
        } else {
            codec.codec.encode(&image)
        };
        Ok((picture, tokens.to_device(Device::Cpu)))
    }
}
