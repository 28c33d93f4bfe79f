//! The original's YAML configuration: what it declares of a model, checked against
//! the weights, and where it says the other files are.

use std::path::{Path, PathBuf};

use serde_yaml::Value;

use super::error::LoadError;
use crate::codec::QuantizerKind;
use crate::files;
use crate::model::{ModelConfig, NullText};
use crate::transformer::config::{FeedForwardKind, TimestepEmbedding};
use crate::transformer::{Conditioning, NullClass};

/// An official YAML file.
#[derive(Clone, Debug)]
pub struct OfficialYaml {
    path: PathBuf,
    root: Value,
}

const DIFFUSION: &str = "model.params.diffusion_config.params";
const NETWORK: &str = "model.params.diffusion_config.params.transformer_config.params";
const CODEC: &str = "model.params.content_codec_config.params";

impl OfficialYaml {
    /// Whether a YAML document is in the official layout.
    pub fn recognises(root: &Value) -> bool {
        lookup(root, DIFFUSION).is_some()
    }

    /// `root` is the parsed document of `path`.
    pub fn new(path: &Path, root: Value) -> Self {
        OfficialYaml {
            path: path.to_path_buf(),
            root,
        }
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// `n_head`, which no weight shows.
    pub fn heads(&self) -> Option<i64> {
        self.integer(&format!("{NETWORK}.n_head"))
    }

    /// `content_spatial_size`, the token grid: it may be smaller than the position
    /// table, whose size is all that the weights show.
    pub fn grid(&self) -> Option<[i64; 2]> {
        self.pair(&format!("{NETWORK}.content_spatial_size"))
    }

    /// The code mapping file it names, if it maps codes at all.
    pub fn mapping_path(&self) -> Option<&str> {
        let mapped = self.integer(&format!("{CODEC}.quantize_number"))?;
        let path = self.text(&format!("{CODEC}.mapping_path"))?;
        (mapped != 0 && path != "None").then_some(path)
    }

    /// The codec's checkpoint file it names.
    pub fn codec_path(&self) -> Option<&str> {
        self.text(&format!("{CODEC}.ckpt_path"))
    }

    /// Compares every number it declares with what the weights of `file` say.
    ///
    /// `learnable_cf` is not compared: the original's documentation loads the
    /// `*_learnable` files with configurations that lack it.
    pub fn check(&self, model: &ModelConfig, file: &Path) -> Result<(), LoadError> {
        let d = &model.denoiser;
        let numbers = [
            (format!("{DIFFUSION}.diffusion_step"), d.timesteps),
            (format!("{NETWORK}.n_layer"), d.layers),
            (format!("{NETWORK}.n_embd"), d.width),
            (format!("{NETWORK}.n_head"), d.heads),
            (format!("{NETWORK}.content_seq_len"), d.tokens()),
            (format!("{NETWORK}.mlp_hidden_times"), d.expansion),
            (
                format!("{DIFFUSION}.content_emb_config.params.num_embed"),
                d.codes,
            ),
            (
                format!("{DIFFUSION}.content_emb_config.params.embed_dim"),
                d.width,
            ),
            (format!("{CODEC}.num_tokens"), model.codec.codebook),
        ];
        for (key, found) in numbers {
            if let Some(declared) = self.integer(&key) {
                self.compare(&key, declared, found, file)?;
            }
        }
        self.check_condition(model, file)?;
        if let Some(declared) = self.integer(&format!("{CODEC}.quantize_number")) {
            let expected = if declared == 0 {
                model.codec.codebook
            } else {
                declared
            };
            let key = format!("{CODEC}.quantize_number");
            self.compare(&key, expected, d.codes, file)?;
        }
        if let Some(side) = self.grid() {
            let key = format!("{NETWORK}.content_spatial_size");
            self.compare(&key, format!("{side:?}"), format!("{:?}", d.grid), file)?;
        }
        let words = [
            (
                format!("{NETWORK}.mlp_type"),
                "fc",
                match d.feed_forward {
                    FeedForwardKind::Fc => "fc",
                    FeedForwardKind::Conv => "conv_mlp",
                },
            ),
            (
                format!("{NETWORK}.timestep_type"),
                "adalayernorm",
                match d.timestep_embedding {
                    TimestepEmbedding::Table => "adalayernorm",
                    TimestepEmbedding::Sinusoid => "adalayernorm_abs",
                },
            ),
            (format!("{NETWORK}.block_activate"), "GELU2", "GELU2"),
            (format!("{DIFFUSION}.alpha_init_type"), "alpha1", "alpha1"),
        ];
        for (key, default, found) in words {
            let declared = self.text(&key).unwrap_or(default);
            self.compare(&key, declared.to_string(), found.to_string(), file)?;
        }
        let target = self.text("model.params.content_codec_config.target");
        let declared = target.and_then(|name| match name.rsplit('.').next() {
            Some("TamingGumbelVQVAE") => Some(QuantizerKind::Gumbel),
            Some("TamingVQVAE" | "TamingFFHQVQVAE") => Some(QuantizerKind::Vector),
            Some("PatchVQVAE") => Some(QuantizerKind::Ema),
            _ => None,
        });
        if let Some(declared) = declared {
            let (declared, found) = (
                format!("{declared:?}"),
                format!("{:?}", model.codec.quantizer),
            );
            self.compare(
                "model.params.content_codec_config.target",
                declared,
                found,
                file,
            )?;
        }
        Ok(())
    }

    /// Compares what it says of the condition.
    fn check_condition(&self, model: &ModelConfig, file: &Path) -> Result<(), LoadError> {
        let network = |key: &str| format!("{NETWORK}.{key}");
        let attention = match model.denoiser.condition {
            Conditioning::Text { .. } => "selfcross",
            Conditioning::Class { .. } => "selfcondition",
            Conditioning::Unconditional => "self",
        };
        let key = network("attn_type");
        if let Some(declared) = self.text(&key) {
            self.compare(&key, declared, attention, file)?;
        }
        let mut numbers = Vec::new();
        match model.denoiser.condition {
            Conditioning::Text { positions, width } => {
                numbers.push((network("condition_dim"), width));
                numbers.push((network("condition_seq_len"), positions));
            }
            Conditioning::Class { classes, null } => {
                let key = network("class_number");
                let rows = match (null, self.integer(&key)) {
                    // The original's inference script adds the null class's row in
                    // code, so that its configuration file lacks it.
                    (NullClass::Learned, Some(declared)) if declared == classes => classes,
                    (NullClass::Learned, _) => classes + 1,
                    (NullClass::Mean, _) => classes,
                };
                numbers.push((key, rows));
                let key = network("class_type");
                if let Some(declared) = self.text(&key) {
                    self.compare(&key, declared, "adalayernorm", file)?;
                }
            }
            Conditioning::Unconditional => {}
        }
        for (key, found) in numbers {
            if let Some(declared) = self.integer(&key) {
                self.compare(&key, declared, found, file)?;
            }
        }
        let learned = model
            .text
            .as_ref()
            .is_none_or(|t| t.null == NullText::Learned);
        let key = format!("{DIFFUSION}.learnable_cf");
        if self.boolean(&key) == Some(true) && !learned {
            self.compare(&key, "true", "no empty_text_embed", file)?;
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

    fn integer(&self, path: &str) -> Option<i64> {
        lookup(&self.root, path)?.as_i64()
    }

    fn text(&self, path: &str) -> Option<&str> {
        lookup(&self.root, path)?.as_str()
    }

    fn boolean(&self, path: &str) -> Option<bool> {
        lookup(&self.root, path)?.as_bool()
    }

    fn pair(&self, path: &str) -> Option<[i64; 2]> {
        let list = lookup(&self.root, path)?.as_sequence()?;
        let sides: Vec<i64> = list.iter().filter_map(Value::as_i64).collect();
        sides.try_into().ok()
    }
}

/// The value at a dotted path; tags such as `!!python/tuple` are looked through.
fn lookup<'a>(root: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(untagged(root), |value, key| {
        Some(untagged(value.as_mapping()?.get(key)?))
    })
}

fn untagged(value: &Value) -> &Value {
    match value {
        Value::Tagged(tagged) => untagged(&tagged.value),
        other => other,
    }
}

/// Where a relative path of a configuration may lie: the working directory, the
/// configuration's folder and its parents, the checkpoint's folder.
pub fn resolve(name: &str, config: Option<&Path>, checkpoint: &Path) -> Option<PathBuf> {
    let wanted = files::expand_home(Path::new(name)).ok()?;
    let mut roots = vec![PathBuf::from(".")];
    if let Some(config) = config.and_then(|c| c.canonicalize().ok()) {
        roots.extend(config.ancestors().skip(1).map(Path::to_path_buf));
    }
    roots.extend(checkpoint.parent().map(Path::to_path_buf));
    roots
        .into_iter()
        .map(|root| root.join(&wanted))
        .find(|path| path.is_file())
}
