//! The original's YAML configuration: the model that it declares, checked against the
//! weights or as it is, and where it says the other files are.

use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::super::error::LoadError;
use super::super::infer::{classes_of, Unshown};
use super::document::{Document, OptionError};
use super::options::{
    self, ADAPTIVE_NORMS, CODEC, CONDITION, CONTENT, DIFFUSION, MODEL, NETWORK, TOKENIZE, TOKENIZER,
};
use crate::clip::TextConfig;
use crate::codec::{CodecConfig, QuantizerKind};
use crate::diffusion::{Times, Transition};
use crate::files;
use crate::model::{ModelConfig, NullText, TextCondition, UsualSampling};
use crate::transformer::config::{
    Activation, AdaptiveNorm, FeedForwardKind, IndexEmbedding, PositionWeights,
};
use crate::transformer::{Conditioning, DenoiserConfig, NullClass};

/// An official YAML file.
#[derive(Clone, Debug)]
pub struct OfficialConfig {
    path: PathBuf,
    document: Document,
}

/// Which of the original's three networks it is.
#[derive(Clone, Copy, PartialEq)]
enum Network {
    Text,
    Class,
    Unconditional,
}

/// Entries of the text vocabulary that `end_idx` does not count.
const BYTES: i64 = 256;

impl OfficialConfig {
    /// Whether a YAML document is in the official layout.
    pub fn recognises(root: &Value) -> bool {
        Document::new(root.clone())
            .at(&format!("{DIFFUSION}.params"))
            .is_some()
    }

    /// `root` is the parsed document of `path`.
    ///
    /// # Errors
    ///
    /// Options that the original's constructors do not have, and values that have no
    /// counterpart here.
    pub fn new(path: &Path, root: Value) -> Result<Self, LoadError> {
        let config = OfficialConfig {
            path: path.to_path_buf(),
            document: Document::new(root),
        };
        options::check(&config.document).map_err(|e| config.refused(e))?;
        config.network()?;
        Ok(config)
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn document(&self) -> &Document {
        &self.document
    }

    /// An option's error with the file's name.
    pub fn refused(&self, source: OptionError) -> LoadError {
        LoadError::Option {
            config: self.path.clone(),
            source,
        }
    }

    fn refuse(&self, key: &str, expected: impl Into<String>) -> LoadError {
        self.refused(self.document.refused(key, expected))
    }

    fn integer(&self, place: &str, option: &str) -> Result<Option<i64>, LoadError> {
        let found = self.document.integer(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn flag(&self, place: &str, option: &str) -> Result<Option<bool>, LoadError> {
        let found = self.document.flag(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn pair(&self, place: &str, option: &str) -> Result<Option<[i64; 2]>, LoadError> {
        let found = self.document.pair(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn word(&self, place: &str, option: &str) -> Result<Option<&str>, LoadError> {
        let found = self.document.word(&format!("{place}.params.{option}"));
        found.map_err(|e| self.refused(e))
    }

    fn class(&self, place: &str) -> Result<Option<&str>, LoadError> {
        self.document.class(place).map_err(|e| self.refused(e))
    }

    /// Refuses options that are nothing to a trained model, but would train another one.
    pub fn check_training(&self) -> Result<(), LoadError> {
        options::check_training(&self.document).map_err(|e| self.refused(e))
    }

    /// Whether it has a learned embedding in place of no text.
    pub fn learns_null(&self) -> Result<bool, LoadError> {
        Ok(self.flag(DIFFUSION, "learnable_cf")? == Some(true))
    }

    /// By the network's class, which each takes one `attn_type`.
    fn network(&self) -> Result<Network, LoadError> {
        let by_class = match self.class(NETWORK)? {
            Some("Text2ImageTransformer") => Some(Network::Text),
            Some("Condition2ImageTransformer") => Some(Network::Class),
            Some("UnCondition2ImageTransformer") => Some(Network::Unconditional),
            _ => None,
        };
        let by_attention = match self.word(NETWORK, "attn_type")? {
            Some("selfcross") => Some(Network::Text),
            Some("selfcondition") => Some(Network::Class),
            Some("self") => Some(Network::Unconditional),
            _ => None,
        };
        match (by_class, by_attention) {
            (Some(class), Some(attention)) if class != attention => {
                let expected = format!("{} in this network", attention_of(class));
                Err(self.refuse(&format!("{NETWORK}.params.attn_type"), expected))
            }
            (Some(network), _) | (None, Some(network)) => Ok(network),
            (None, None) => Err(self.refuse(
                &format!("{NETWORK}.target"),
                "one of the original's networks",
            )),
        }
    }

    /// The token grid, which may be smaller than the position table: that of the codec's
    /// `token_shape`, which alone matters to the original, where `content_seq_len` does
    /// not say otherwise.
    pub fn grid(&self) -> Result<Option<[i64; 2]>, LoadError> {
        let tokens = self.integer(NETWORK, "content_seq_len")?;
        let declared = [
            self.pair(CODEC, "token_shape")?,
            self.pair(NETWORK, "content_spatial_size")?,
        ];
        let fits = |[rows, columns]: &[i64; 2]| {
            tokens.is_none_or(|tokens| rows.checked_mul(*columns) == Some(tokens))
        };
        Ok(declared.into_iter().flatten().find(fits).or_else(|| {
            let tokens = tokens?;
            let side = (tokens.max(0) as f64).sqrt().round() as i64;
            (side * side == tokens).then_some([side; 2])
        }))
    }

    /// What no weight shows.
    pub fn unshown(&self) -> Result<Unshown, LoadError> {
        let norm = |option| self.adaptive_norm(option);
        Ok(Unshown {
            heads: self.integer(NETWORK, "n_head")?,
            activation: self.activation()?,
            timestep_norm: norm("timestep_type")?.map(|(_, norm)| norm),
            class_norm: norm("class_type")?.map(|(_, norm)| norm),
            class_rows: self.integer(NETWORK, "class_number")?,
            normalized_text: self.flag(CONDITION, "normalize")?,
            grid: self.grid()?,
        })
    }

    fn activation(&self) -> Result<Option<Activation>, LoadError> {
        Ok(match self.word(NETWORK, "block_activate")? {
            Some("GELU") => Some(Activation::Gelu),
            Some("GELU2") => Some(Activation::Gelu2),
            _ => None,
        })
    }

    fn adaptive_norm(
        &self,
        option: &str,
    ) -> Result<Option<(IndexEmbedding, AdaptiveNorm)>, LoadError> {
        let name = self.word(NETWORK, option)?;
        let place = name.and_then(|name| ADAPTIVE_NORMS.iter().position(|known| *known == name));
        Ok(place.map(|place| {
            let embeddings = [IndexEmbedding::Table, IndexEmbedding::Sinusoid];
            let norms = [AdaptiveNorm::Layer, AdaptiveNorm::Instance];
            (embeddings[place % 2], norms[place / 2])
        }))
    }

    /// The code mapping file it names, if it maps codes at all.
    pub fn mapping_path(&self) -> Result<Option<&str>, LoadError> {
        let path = self.word(CODEC, "mapping_path")?;
        let default = match self.class(CODEC)? {
            Some("TamingGumbelVQVAE") => {
                Some((2887, "help_folder/statistics/taming_vqvae_2887.pt"))
            }
            Some("TamingVQVAE") => Some((974, "help_folder/statistics/taming_vqvae_974.pt")),
            _ => None,
        };
        let mapped = self.integer(CODEC, "quantize_number")?;
        let mapped = mapped.or(default.map(|(mapped, _)| mapped)).unwrap_or(0);
        let path = path.or(default.map(|(_, path)| path));
        Ok(path.filter(|path| mapped != 0 && *path != "None"))
    }

    /// The codec's checkpoint file it names; a class without one has it in its code.
    pub fn codec_path(&self) -> Result<Option<&str>, LoadError> {
        let named = self.word(CODEC, "ckpt_path")?;
        Ok(named.or(match self.class(CODEC)? {
            Some("TamingGumbelVQVAE") => {
                Some("OUTPUT/pretrained_model/taming_dvae/taming_f8_8192_openimages_last.pth")
            }
            Some("TamingVQVAE") => {
                Some("OUTPUT/pretrained_model/taming_dvae/vqgan_imagenet_f16_16384.pth")
            }
            Some("TamingFFHQVQVAE") => {
                Some("OUTPUT/pretrained_model/taming_dvae/vqgan_ffhq_f16_1024.pth")
            }
            Some("PatchVQVAE") => Some("OUTPUT/pretrained_model/taming_dvae/ithq_vqvae.pth"),
            _ => None,
        }))
    }

    /// The CLIP file it names, for a model of texts.
    pub fn clip_path(&self) -> Result<Option<&str>, LoadError> {
        if self.network()? != Network::Text {
            return Ok(None);
        }
        let named = self.word(CONDITION, "clip_name")?.unwrap_or("ViT-B/32");
        Ok(Some(match named {
            "ViT-B/32" => "OUTPUT/pretrained_model/ViT-B-32.pt",
            file => file,
        }))
    }

    /// The merge rules it names (`bpe_path`), where they are not CLIP's own.
    pub fn vocabulary_path(&self) -> Result<Option<&str>, LoadError> {
        self.word(TOKENIZER, "bpe_path")
    }

    /// The denoiser that it declares; options that it leaves out as the original's
    /// constructors have them, and the released activation.
    pub fn denoiser(&self) -> Result<DenoiserConfig, LoadError> {
        let network = self.network()?;
        let size = |option: &str, by_network: [i64; 3]| {
            let given = self.integer(NETWORK, option)?;
            Ok::<i64, LoadError>(given.unwrap_or(by_network[network as usize]))
        };
        let tokens = size("content_seq_len", [1024, 1024, 256])?;
        let usual_grid = [[32, 32], [32, 32], [16, 16]][network as usize];
        let grid = self.grid()?.unwrap_or(usual_grid);
        let seq_len = format!("{NETWORK}.params.content_seq_len");
        if grid[0].checked_mul(grid[1]) != Some(tokens) {
            let expected = format!("{} x {}, the tokens of a picture", grid[0], grid[1]);
            return Err(self.refuse(&seq_len, expected));
        }
        let width = size("n_embd", [1024, 1024, 512])?;
        if self
            .integer(CONTENT, "embed_dim")?
            .is_some_and(|d| d != width)
        {
            let expected = format!("{width}, the network's width (n_embd)");
            return Err(self.refuse(&format!("{CONTENT}.params.embed_dim"), expected));
        }
        let feed_forward = match (self.word(NETWORK, "mlp_type")?, network) {
            (Some("conv_mlp"), _) | (None, Network::Class | Network::Unconditional) => {
                FeedForwardKind::Conv
            }
            _ => FeedForwardKind::Fc,
        };
        let usual = (IndexEmbedding::Table, AdaptiveNorm::Layer);
        let (timestep_embedding, timestep_norm) =
            self.adaptive_norm("timestep_type")?.unwrap_or(usual);
        let condition = match network {
            Network::Unconditional => Conditioning::Unconditional,
            Network::Text => Conditioning::Text {
                positions: self.text_positions()?,
                width: size("condition_dim", [512; 3])?,
            },
            Network::Class => {
                let rows = size("class_number", [1000; 3])?;
                let (embedding, norm) = self.adaptive_norm("class_type")?.unwrap_or(usual);
                let (classes, null) = classes_of(rows, embedding, norm);
                Conditioning::Class {
                    classes,
                    null,
                    embedding,
                    norm,
                }
            }
        };
        let denoiser = DenoiserConfig {
            layers: size("n_layer", [14, 24, 24])?,
            width,
            heads: size("n_head", [16; 3])?,
            codes: self.integer(CONTENT, "num_embed")?.unwrap_or(8192),
            grid,
            position_table: self.pair(CONTENT, "spatial_size")?.unwrap_or([32, 32]),
            position_weights: match self.word(CONTENT, "pos_emb_type")? {
                Some("parameter") => PositionWeights::Parameter,
                _ => PositionWeights::Embedding,
            },
            timesteps: self.integer(DIFFUSION, "diffusion_step")?.unwrap_or(100),
            timestep_embedding,
            timestep_norm,
            feed_forward,
            activation: self.activation()?.unwrap_or_default(),
            expansion: size("mlp_hidden_times", [4; 3])?,
            condition,
        };
        self.check_grid(&denoiser)?;
        denoiser.check().map_err(|problem| LoadError::Format {
            path: self.path.clone(),
            problem,
        })?;
        Ok(denoiser)
    }

    /// The original's convolutions take a square of tokens for granted.
    fn check_grid(&self, denoiser: &DenoiserConfig) -> Result<(), LoadError> {
        let [rows, columns] = denoiser.grid;
        if denoiser.feed_forward == FeedForwardKind::Conv && rows != columns {
            let expected =
                format!("fc with a token grid of {rows} x {columns}: conv_mlp needs a square");
            return Err(self.refuse(&format!("{NETWORK}.params.mlp_type"), expected));
        }
        Ok(())
    }

    fn text_positions(&self) -> Result<i64, LoadError> {
        let declared = self.integer(TOKENIZE, "context_length")?;
        let declared = declared.or(self.integer(NETWORK, "condition_seq_len")?);
        Ok(declared.unwrap_or(77))
    }

    /// The whole model that it declares, with the codec and the text tower of the files
    /// that it names.
    ///
    /// # Errors
    ///
    /// Numbers that contradict the files, by their keys.
    pub fn model(
        &self,
        codec: &CodecConfig,
        codec_file: &Path,
        tower: Option<(TextConfig, PathBuf)>,
    ) -> Result<ModelConfig, LoadError> {
        let denoiser = self.denoiser()?;
        let mut codec = codec.clone();
        codec.set_resolution(denoiser.grid[0].saturating_mul(codec.factor()));
        self.check_codec(&codec, denoiser.codes, codec_file)?;
        let text = match tower {
            None => None,
            Some((mut tower, file)) => {
                let dimension = format!("{NETWORK}.params.condition_dim");
                if let Conditioning::Text { positions, width } = denoiser.condition {
                    tower.features.doubled = width == 2 * tower.width;
                    tower.features.normalized = self.flag(CONDITION, "normalize")?.unwrap_or(true);
                    let [context, features] = tower.features();
                    self.compare(&dimension, width, features, &file)?;
                    let length = format!("{NETWORK}.params.condition_seq_len");
                    self.compare(&length, positions, context, &file)?;
                }
                self.check_tower(&tower, &file)?;
                let null = match self.learns_null()? {
                    true => NullText::Learned,
                    false => NullText::EmptyPrompt,
                };
                Some(TextCondition { tower, null })
            }
        };
        let mut model = ModelConfig {
            denoiser,
            transition: Transition::released(),
            text,
            codec,
            sampling: None,
        };
        self.take_guidance(&mut model)?;
        model.check().map_err(|problem| LoadError::Format {
            path: self.path.clone(),
            problem,
        })?;
        Ok(model)
    }

    /// `guidance_scale` of a class model becomes its usual one.
    fn take_guidance(&self, model: &mut ModelConfig) -> Result<(), LoadError> {
        let key = format!("{MODEL}.params.guidance_scale");
        let scale = self.document.number(&key).map_err(|e| self.refused(e))?;
        let Some(guidance) = scale.filter(|scale| *scale != 1.0 && model.sampling.is_none()) else {
            return Ok(());
        };
        if !(1.0..=100.0).contains(&guidance) {
            return Err(self.refuse(&key, "1 to 100"));
        }
        model.sampling = Some(UsualSampling {
            steps: model.usual_steps(),
            guidance,
            truncation: model.usual_truncation(guidance),
            times: Times::Even,
            guidance_span: None,
        });
        Ok(())
    }

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

    fn check_codec(&self, codec: &CodecConfig, codes: i64, file: &Path) -> Result<(), LoadError> {
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
            format!("{declared:?}"),
            format!("{:?}", codec.quantizer),
            file,
        )
    }

    /// The size of the vocabulary; the original takes as many merge rules as `end_idx`
    /// says, and the text tower one row for each entry.
    fn check_tower(&self, tower: &TextConfig, file: &Path) -> Result<(), LoadError> {
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

    fn compare<A, B>(&self, key: &str, declared: A, found: B, file: &Path) -> Result<(), LoadError>
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

    /// The file that `name` stands for, if it is there ([`resolve`]).
    pub fn resolve(&self, name: &str) -> Option<PathBuf> {
        resolve(name, Some(&self.path), &self.path)
    }
}

/// The `attn_type` of a network.
fn attention_of(network: Network) -> &'static str {
    match network {
        Network::Text => "selfcross",
        Network::Class => "selfcondition",
        Network::Unconditional => "self",
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

/// Where a relative path of a configuration may lie: the working directory, the
/// configuration's folder and its parents, the checkpoint's folder.
pub fn resolve(name: &str, config: Option<&Path>, checkpoint: &Path) -> Option<PathBuf> {
    places(name, config, checkpoint).find(|path| path.is_file())
}

/// Every place that a relative path of a configuration may mean.
pub fn places(
    name: &str,
    config: Option<&Path>,
    checkpoint: &Path,
) -> impl Iterator<Item = PathBuf> {
    // A home folder that is not known leaves the name as it is.
    let wanted = files::expand_home(Path::new(name)).unwrap_or_else(|_| name.into());
    let mut roots = vec![PathBuf::from(".")];
    if let Some(config) = config.and_then(|c| c.canonicalize().ok()) {
        roots.extend(config.ancestors().skip(1).map(Path::to_path_buf));
    }
    roots.extend(checkpoint.parent().map(Path::to_path_buf));
    roots.into_iter().map(move |root| root.join(&wanted))
}
