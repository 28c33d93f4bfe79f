//! The original's configuration against the weights that it comes with.

use std::path::Path;

use super::super::super::error::LoadError;
use super::super::options::{CODEC, CONDITION, CONTENT, DIFFUSION, NETWORK, TOKENIZE, TOKENIZER};
use super::{attention_of, Network, OfficialConfig};
use crate::clip::TextConfig;
use crate::codec::{CodecConfig, QuantizerKind};
use crate::model::{ModelConfig, NullText};
use crate::transformer::config::{
    Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use crate::transformer::{Conditioning, DenoiserConfig, NullClass};

/// Entries of the text vocabulary that `end_idx` does not count.
const BYTES: i64 = 256;

impl OfficialConfig {
    /// Takes over what is no matter of weights, and compares every number it declares
    /// with what the weights of `file` say.
    ///
    /// `learnable_cf` is not compared: the original's documentation loads the
    /// `*_learnable` files with configurations that lack it.
    pub fn apply(&self, model: &mut ModelConfig, file: &Path) -> Result<(), LoadError> {
        self.check_denoiser(&model.denoiser, file)?;
        self.check_condition(model, file)?;
        self.check_grid(&model.denoiser)?;
        self.check_codec(&model.codec, model.denoiser.codes, file)?;
        if let Some(text) = &model.text {
            self.check_tower(&text.tower, file)?;
        }
        self.take_guidance(model)
    }

    /// The original's convolutions take a square of tokens for granted.
    pub(super) fn check_grid(&self, denoiser: &DenoiserConfig) -> Result<(), LoadError> {
        let [rows, columns] = denoiser.grid;
        if denoiser.feed_forward == FeedForwardKind::Conv && rows != columns {
            let expected =
                format!("fc with a token grid of {rows} x {columns}: conv_mlp needs a square");
            return Err(self.refuse(&format!("{NETWORK}.params.mlp_type"), expected));
        }
        Ok(())
    }

    fn check_denoiser(&self, d: &DenoiserConfig, file: &Path) -> Result<(), LoadError> {
        let numbers = [
            (DIFFUSION, "diffusion_step", d.timesteps),
            (NETWORK, "n_layer", d.layers),
            (NETWORK, "n_embd", d.width),
            (NETWORK, "n_head", d.heads),
            (NETWORK, "content_seq_len", d.tokens()),
            (NETWORK, "mlp_hidden_times", d.expansion),
            (CONTENT, "num_embed", d.codes),
            (CONTENT, "embed_dim", d.width),
        ];
        for (place, option, found) in numbers {
            if let Some(declared) = self.integer(place, option)? {
                self.compare(&format!("{place}.params.{option}"), declared, found, file)?;
            }
        }
        if let Some(table) = self.pair(CONTENT, "spatial_size")? {
            let key = format!("{CONTENT}.params.spatial_size");
            let [declared, found] = [table, d.position_table].map(|side| format!("{side:?}"));
            self.compare(&key, declared, found, file)?;
        }
        if let Some(declared) = self.activation()? {
            let key = format!("{NETWORK}.params.block_activate");
            let [declared, found] = [declared, d.activation].map(activation_name);
            self.compare(&key, declared, found, file)?;
        }
        let network = self.network()?;
        let feed_forward = match network {
            Network::Text => "fc",
            Network::Class | Network::Unconditional => "conv_mlp",
        };
        let words = [
            (
                NETWORK,
                "mlp_type",
                feed_forward,
                match d.feed_forward {
                    FeedForwardKind::Fc => "fc",
                    FeedForwardKind::Conv => "conv_mlp",
                },
            ),
            (
                NETWORK,
                "timestep_type",
                "adalayernorm",
                norm_name(d.timestep_embedding, d.timestep_norm),
            ),
            (
                CONTENT,
                "pos_emb_type",
                "embedding",
                match d.position_weights {
                    PositionWeights::Embedding => "embedding",
                    PositionWeights::Parameter => "parameter",
                },
            ),
        ];
        for (place, option, default, found) in words {
            let declared = self.word(place, option)?.unwrap_or(default);
            self.compare(&format!("{place}.params.{option}"), declared, found, file)?;
        }
        Ok(())
    }

    pub(super) fn check_codec(
        &self,
        codec: &CodecConfig,
        codes: i64,
        file: &Path,
    ) -> Result<(), LoadError> {
        if let Some(declared) = self.integer(CODEC, "num_tokens")? {
            let key = format!("{CODEC}.params.num_tokens");
            self.compare(&key, declared, codec.codebook, file)?;
        }
        if let Some(declared) = self.integer(CODEC, "quantize_number")? {
            let expected = if declared == 0 {
                codec.codebook
            } else {
                declared
            };
            self.compare(
                &format!("{CODEC}.params.quantize_number"),
                expected,
                codes,
                file,
            )?;
        }
        let declared = match self.class(CODEC)? {
            Some("TamingGumbelVQVAE") => QuantizerKind::Gumbel,
            Some("TamingVQVAE" | "TamingFFHQVQVAE") => QuantizerKind::Vector,
            Some("PatchVQVAE") => QuantizerKind::Ema,
            _ => return Ok(()),
        };
        self.compare(
            &format!("{CODEC}.target"),
            format!("the {declared} quantizer"),
            format!("the {} quantizer", codec.quantizer),
            file,
        )
    }

    /// The size of the vocabulary; the original takes as many merge rules as `end_idx`
    /// says, and the text tower one row for each entry.
    pub(super) fn check_tower(&self, tower: &TextConfig, file: &Path) -> Result<(), LoadError> {
        if let Some(end) = self.integer(TOKENIZER, "end_idx")? {
            let key = format!("{TOKENIZER}.params.end_idx");
            self.compare(&key, end, tower.vocabulary - BYTES, file)?;
        }
        if let Some(normalized) = self.flag(CONDITION, "normalize")? {
            let key = format!("{CONDITION}.params.normalize");
            self.compare(&key, normalized, tower.features.normalized, file)?;
        }
        if let Some(length) = self.integer(TOKENIZE, "context_length")? {
            let key = format!("{TOKENIZE}.params.context_length");
            self.compare(&key, length, tower.context, file)?;
        }
        Ok(())
    }

    /// Compares what it says of the condition.
    fn check_condition(&self, model: &ModelConfig, file: &Path) -> Result<(), LoadError> {
        let key = |option: &str| format!("{NETWORK}.params.{option}");
        let found = match model.denoiser.condition {
            Conditioning::Text { .. } => Network::Text,
            Conditioning::Class { .. } => Network::Class,
            Conditioning::Unconditional => Network::Unconditional,
        };
        let [declared, found] = [self.network()?, found].map(attention_of);
        self.compare(&key("attn_type"), declared, found, file)?;
        let mut numbers = Vec::new();
        match model.denoiser.condition {
            Conditioning::Text { positions, width } => {
                numbers.push(("condition_dim", width));
                numbers.push(("condition_seq_len", positions));
            }
            Conditioning::Class {
                classes,
                null,
                embedding,
                norm,
            } => {
                let rows = match (null, self.integer(NETWORK, "class_number")?) {
                    // The original's inference script adds the null class's row in
                    // code, so that its configuration file lacks it.
                    (NullClass::Learned, Some(declared)) if declared == classes => classes,
                    (NullClass::Learned, _) => classes + 1,
                    (NullClass::Mean | NullClass::Absent, _) => classes,
                };
                numbers.push(("class_number", rows));
                let declared = self.word(NETWORK, "class_type")?.unwrap_or("adalayernorm");
                self.compare(
                    &key("class_type"),
                    declared,
                    norm_name(embedding, norm),
                    file,
                )?;
            }
            Conditioning::Unconditional => {}
        }
        for (option, found) in numbers {
            if let Some(declared) = self.integer(NETWORK, option)? {
                self.compare(&key(option), declared, found, file)?;
            }
        }
        let null = model.text.as_ref().map(|text| text.null);
        if self.learns_null()? && null == Some(NullText::EmptyPrompt) {
            log::warn!(
                "{}: {DIFFUSION}.params.learnable_cf is true, but {} holds no empty_text_embed; \
                 the empty prompt stands for no text",
                self.path.display(),
                file.display()
            );
        }
        Ok(())
    }

    pub(super) fn compare<A, B>(
        &self,
        key: &str,
        declared: A,
        found: B,
        file: &Path,
    ) -> Result<(), LoadError>
    where
        A: PartialEq<B> + ToString,
        B: ToString,
    {
        if declared == found {
            return Ok(());
        }
        Err(LoadError::Mismatch {
            config: self.path.clone(),
            key: key.to_string(),
            declared: declared.to_string(),
            file: file.to_path_buf(),
            found: found.to_string(),
        })
    }
}

/// The official name of an activation (`block_activate`).
fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu2 => "GELU2",
        Activation::Gelu => "GELU",
    }
}

/// The official name of an adaptive norm (`timestep_type`, `class_type`).
pub(in crate::checkpoint) fn norm_name(
    embedding: IndexEmbedding,
    norm: AdaptiveNorm,
) -> &'static str {
    match (norm, embedding) {
        (AdaptiveNorm::Layer, IndexEmbedding::Table) => "adalayernorm",
        (AdaptiveNorm::Layer, IndexEmbedding::Sinusoid) => "adalayernorm_abs",
        (AdaptiveNorm::Instance, IndexEmbedding::Table) => "adainsnorm",
        (AdaptiveNorm::Instance, IndexEmbedding::Sinusoid) => "adainsnorm_abs",
    }
}
