//! The codec as the diffusion model sees it: pictures ↔ tokens below K.

use serde::{Deserialize, Serialize};
use tch::{Kind, TchError, Tensor};

use super::codebook::nearest;
use super::config::CodecConfig;
use super::decoder::Decoder;
use super::encoder::Encoder;
use super::layers::Conv;
use super::quantizer::Quantizer;
use crate::torch::device::Precision;
use crate::torch::Params;

/// How a channel value in 0…255 becomes 8 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To the nearest integer (diffusers).
    Nearest,
    /// Toward zero (the official inference script).
    Truncate,
}

/// Reduced codes: a model may use K of the codebook's N entries
/// (`quantize_number` and its mapping file).
pub struct CodeMapping {
    full_to_reduced: Tensor, // [N] int64
    reduced_to_full: Tensor, // [K] int64
}

/// Why a tensor is no code mapping.
#[derive(Debug, thiserror::Error)]
pub enum CodeMappingError {
    #[error("expected a vector of int64: {0}")]
    Kind(#[source] TchError),
    #[error("entry {entry} is {code}, expected 0 to {last}")]
    Entry { entry: usize, code: i64, last: i64 },
    #[error("no entry maps to code {code} of {reduced}")]
    Unused { code: usize, reduced: i64 },
}

impl CodeMapping {
    /// `full_to_reduced` `[N]` int64 with values 0…K−1, every one of them used.
    /// The inverse takes the smallest full index of each reduced code.
    ///
    /// # Errors
    ///
    /// A tensor of another kind, other values, a reduced code that nothing maps to.
    pub fn new(full_to_reduced: &Tensor, reduced: i64) -> Result<Self, CodeMappingError> {
        let full: Vec<i64> = full_to_reduced.try_into().map_err(CodeMappingError::Kind)?;
        let mut inverse = vec![-1; reduced as usize];
        for (n, &k) in full.iter().enumerate().rev() {
            *inverse
                .get_mut(usize::try_from(k).unwrap_or(usize::MAX))
                .ok_or(CodeMappingError::Entry {
                    entry: n,
                    code: k,
                    last: reduced - 1,
                })? = n as i64;
        }
        if let Some(code) = inverse.iter().position(|&n| n < 0) {
            return Err(CodeMappingError::Unused { code, reduced });
        }
        Ok(CodeMapping {
            full_to_reduced: full_to_reduced.shallow_clone(),
            reduced_to_full: Tensor::from_slice(&inverse).to_device(full_to_reduced.device()),
        })
    }

    /// `[N]` int64: the reduced code of every code.
    pub fn full_to_reduced(&self) -> &Tensor {
        &self.full_to_reduced
    }

    /// `[K]` int64: the full index that each reduced code is decoded as.
    pub fn reduced_to_full(&self) -> &Tensor {
        &self.reduced_to_full
    }
}

/// What a pass of codec training gives, P = B·h·w positions.
pub struct TrainingPass {
    /// x̃, `[B, 3, H, W]` f32, about −1…1.
    pub reconstruction: Tensor,
    /// Encoder output, `[P, E]` f32.
    pub latents: Tensor,
    /// Codes, `[P]` int64, if quantized.
    pub codes: Option<Tensor>,
    /// mean (z − sg(e))², a scalar.
    pub commitment: Tensor,
}

/// Encoder, quantizer and decoder with the code mapping.
pub struct ImageCodec {
    encoder: Encoder,
    quant_conv: Conv,
    quantizer: Quantizer,
    post_quant_conv: Conv,
    decoder: Decoder,
    mapping: Option<CodeMapping>,
    config: CodecConfig,
}

impl ImageCodec {
    /// Builds the codec from the weights below `p`, spelled as in a taming file.
    pub fn new(p: &Params, config: &CodecConfig, mapping: Option<CodeMapping>) -> Self {
        let (latent, embedding) = (config.latent_channels, config.embedding_width);
        ImageCodec {
            encoder: Encoder::new(&p.at("encoder"), config),
            quant_conv: Conv::pointwise(&p.at("quant_conv"), latent, embedding),
            quantizer: Quantizer::new(&p.at("quantize"), config),
            post_quant_conv: Conv::pointwise(&p.at("post_quant_conv"), embedding, latent),
            decoder: Decoder::new(&p.at("decoder"), config),
            mapping,
            config: config.clone(),
        }
    }

    pub fn config(&self) -> &CodecConfig {
        &self.config
    }

    /// The mapping between the codebook's codes and the tokens, if they differ.
    pub fn mapping(&self) -> Option<&CodeMapping> {
        self.mapping.as_ref()
    }

    /// Encoder output before quantization: `image` `[B, 3, H, W]` float in 0…255
    /// → `[B, E, h, w]`.
    pub fn encode_latent(&self, image: &Tensor) -> Tensor {
        let x = image / 255.0 * 2.0 - 1.0;
        self.quant_conv.forward(&self.encoder.forward(&x))
    }

    /// Fit of every code at every position ([`Quantizer::scores`]):
    /// `latent` `[B, E, h, w]` → `[B, L, N]`.
    pub fn code_scores(&self, latent: &Tensor) -> Tensor {
        self.quantizer.scores(latent)
    }

    /// Tokens of pictures by the best-fitting code (no Gumbel noise):
    /// `image` `[B, 3, H, W]` float in 0…255 → `[B, L]` int64 below K.
    pub fn encode(&self, image: &Tensor) -> Tensor {
        self.to_tokens(&self.code_scores(&self.encode_latent(image)))
    }

    /// Tokens drawn from the Gumbel quantizer's distribution, as the original
    /// extracts its training tokens: argmax of scores − ln e, with `exponential`
    /// noise e ~ Exp(1) of the scores' shape `[B, L, N]`.
    pub fn encode_sampled(&self, image: &Tensor, exponential: &Tensor) -> Tensor {
        let scores = self.code_scores(&self.encode_latent(image));
        self.to_tokens(&(scores - exponential.log()))
    }

    /// Best code of `scores` `[B, L, N]`, mapped below K → `[B, L]`.
    fn to_tokens(&self, scores: &Tensor) -> Tensor {
        let full = scores.argmax(-1, false); // [B, L]
        match &self.mapping {
            Some(mapping) => mapping.full_to_reduced.take(&full),
            None => full,
        }
    }

    /// One pass of codec training: `x` `[B, 3, H, W]` in −1…1. Positions take their
    /// nearest entry of `table` `[N, E]` f32, with the gradient passed straight through;
    /// without a table the latent map stays as it is.
    pub fn training_pass(&self, x: &Tensor, table: Option<&Tensor>) -> TrainingPass {
        let map = self.quant_conv.forward(&self.encoder.forward(x)); // [B, E, h, w]
        let [batch, width, h, w] = [0, 1, 2, 3].map(|d| map.size()[d]);
        let rows = map.permute([0, 2, 3, 1]); // [B, h, w, E]
        let latents = rows.reshape([-1, width]).to_kind(Kind::Float); // [P, E]
        let codes = table.map(|table| nearest(&latents, table)); // [P]
        let quantized = match (table, &codes) {
            (Some(table), Some(codes)) => table.index_select(0, codes), // [P, E]
            _ => latents.detach(),
        };
        let commitment = (&latents - &quantized).square().mean(Kind::Float);
        let passed = &latents + (quantized - &latents).detach();
        let z = passed
            .view([batch, h, w, width])
            .permute([0, 3, 1, 2])
            .contiguous() // the group norm of channels-last maps is slow backward
            .to_kind(map.kind());
        let decoded = self.decoder.forward(&self.post_quant_conv.forward(&z));
        TrainingPass {
            reconstruction: decoded.to_kind(Kind::Float),
            latents,
            codes,
            commitment,
        }
    }

    /// Decoder output, about −1…1, not clamped: `tokens` `[B, L]` int64 below K,
    /// row-major over a grid of `grid` rows and columns → `[B, 3, H, W]`.
    pub fn decode_raw(&self, tokens: &Tensor, grid: [i64; 2]) -> Tensor {
        // A channels-last map would take all layers to another, less exact group norm.
        self.decoded(&self.embedded(tokens, grid).contiguous())
    }

    /// As [`decode_raw`](Self::decode_raw) with the decoder in `precision`, f32 → f32.
    pub fn decode_raw_in(&self, tokens: &Tensor, grid: [i64; 2], precision: Precision) -> Tensor {
        match precision {
            Precision::F32 => self.decode_raw(tokens, grid),
            // Channels last, which convolutions in 16 bits are fastest with.
            _ => {
                let z = self.embedded(tokens, grid).to_kind(precision.kind());
                self.decoded(&z).to_kind(Kind::Float).contiguous()
            }
        }
    }

    /// Codebook rows of `tokens` `[B, L]` as a map `[B, E, h, w]` with its channels last.
    fn embedded(&self, tokens: &Tensor, grid: [i64; 2]) -> Tensor {
        let full = match &self.mapping {
            Some(mapping) => mapping.reduced_to_full.take(tokens),
            None => tokens.shallow_clone(),
        };
        let rows = self.quantizer.embed(&full); // [B, L, E]
        rows.view([tokens.size()[0], grid[0], grid[1], -1])
            .permute([0, 3, 1, 2])
    }

    fn decoded(&self, z: &Tensor) -> Tensor {
        self.decoder.forward(&self.post_quant_conv.forward(z))
    }

    /// Pictures as floats in 0…255: `[B, L]` → `[B, 3, H, W]`.
    pub fn decode(&self, tokens: &Tensor, grid: [i64; 2]) -> Tensor {
        to_picture(&self.decode_raw(tokens, grid))
    }

    /// As [`decode`](Self::decode) with the decoder in `precision`.
    pub fn decode_in(&self, tokens: &Tensor, grid: [i64; 2], precision: Precision) -> Tensor {
        to_picture(&self.decode_raw_in(tokens, grid, precision))
    }
}

/// −1…1 to 0…255, what lies outside cut off.
fn to_picture(x: &Tensor) -> Tensor {
    (x.clamp(-1.0, 1.0) + 1.0) / 2.0 * 255.0
}

/// Floats in 0…255 to bytes: same shape, kind `Uint8`.
pub fn to_bytes(image: &Tensor, rounding: Rounding) -> Tensor {
    match rounding {
        Rounding::Nearest => image.round().clamp(0.0, 255.0).to_kind(Kind::Uint8),
        Rounding::Truncate => image.clamp(0.0, 255.0).to_kind(Kind::Uint8),
    }
}
