//! CLIP (arXiv 2103.00020) with both towers, from OpenAI's, open_clip's or transformers'
//! files: B/32, L/14, L/14-336, and H/14 of PickScore and HPSv2.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::weights::{join_qkv, load, telling_shape, transposed, Loaded};
use crate::checkpoint::{read_tensors, LoadError, StateDict};
use crate::clip::text::{FeatureConfig, MergeSource};
use crate::clip::tokenizer::FULL_VOCABULARY;
use crate::clip::vision::VisionFeatures;
use crate::clip::{
    ClipActivation, ClipTokenizer, TextConfig, TextEncoder, TokenRule, TokenizerError,
    VisionConfig, VisionEncoder,
};
use crate::config_error::ConfigError;
use crate::torch::{Init, Params};

/// Shape of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct ClipConfig {
    pub vision: VisionConfig,
    /// `None` for an image tower alone.
    pub text: Option<TextConfig>,
}

/// Texts that the text tower sees at once.
const BATCH: usize = 64;
/// Widths of image towers with 16 heads whatever their width, of open_clip's models with
/// the exact GELU: H/14, g/14 and G/14.
const OPEN_CLIP_WIDTHS: [i64; 3] = [1280, 1408, 1664];

impl ClipConfig {
    /// From the shapes of tensors under OpenAI's names. `activation` is not stored in any
    /// file: unless it is given, it is the exact GELU for the widths of open_clip's larger
    /// models, else OpenAI's.
    ///
    /// # Errors
    ///
    /// Tensors of something else.
    pub fn infer(
        state: &StateDict,
        path: &Path,
        activation: Option<ClipActivation>,
    ) -> Result<Self, LoadError> {
        const WHAT: &str = "a CLIP network with an image tower";
        let shape = |name: &str, dimensions| telling_shape(state, path, name, dimensions, WHAT);
        let patches = shape("visual.conv1.weight", 4)?;
        let (width, patch) = (patches[0], patches[2]);
        let positions = shape("visual.positional_embedding", 2)?[0] - 1;
        let grid = (positions.max(0) as f64).sqrt().round() as i64;
        let open_clip = OPEN_CLIP_WIDTHS.contains(&width);
        let vision = VisionConfig {
            width,
            layers: state.count_indexed("visual.transformer.resblocks."),
            heads: if open_clip { 16 } else { (width / 64).max(1) },
            hidden: shape("visual.transformer.resblocks.0.mlp.c_fc.weight", 2)?[0],
            activation: activation.unwrap_or(match open_clip {
                true => ClipActivation::Gelu,
                false => ClipActivation::QuickGelu,
            }),
            patch,
            picture: grid * patch,
            embedding: shape("visual.proj", 2)?[1],
        };
        let problem = |problem: String| LoadError::Format {
            path: path.to_path_buf(),
            problem: format!("not {WHAT}: {problem}"),
        };
        let impossible = |e: ConfigError| LoadError::Config {
            path: path.to_path_buf(),
            source: e.of_part(format!("not {WHAT}")),
        };
        vision.check().map_err(impossible)?;
        if grid * grid != positions {
            return Err(problem(format!(
                "{positions} positions of patches, which are no square"
            )));
        }
        let text = match state.contains("token_embedding.weight") {
            false => None,
            true => {
                let tokens = shape("token_embedding.weight", 2)?;
                let config = TextConfig {
                    vocabulary: tokens[0],
                    width: tokens[1],
                    context: shape("positional_embedding", 2)?[0],
                    layers: state.count_indexed("transformer.resblocks."),
                    heads: (tokens[1] / 64).max(1),
                    hidden: shape("transformer.resblocks.0.mlp.c_fc.weight", 2)?[0],
                    merges: MergeSource::Clip,
                    tokens: TokenRule::Official,
                    features: FeatureConfig::default(),
                };
                config.check().map_err(impossible)?;
                if config.vocabulary != FULL_VOCABULARY as i64 {
                    return Err(problem(format!(
                        "a vocabulary of {}, expected CLIP's {FULL_VOCABULARY}",
                        config.vocabulary
                    )));
                }
                Some(config)
            }
        };
        Ok(ClipConfig { vision, text })
    }
}

/// The network.
pub struct Clip {
    vision: VisionEncoder,
    text: Option<Text>,
}

struct Text {
    encoder: TextEncoder,
    projection: Tensor, // [C, E]
    logit_scale: f64,
}

impl Clip {
    /// Builds the network from the weights below `p`, under OpenAI's names.
    pub fn new(p: &Params, config: &ClipConfig) -> Self {
        let embedding = config.vision.embedding;
        let text = config.text.as_ref().map(|text| Text {
            encoder: TextEncoder::with_activation(p, text, config.vision.activation),
            projection: p.get(
                "text_projection",
                &[text.width, embedding],
                Init::Normal((text.width as f64).powf(-0.5)),
            ),
            logit_scale: p.get("logit_scale", &[], Init::Ones).double_value(&[]),
        });
        Clip {
            vision: VisionEncoder::new(&p.at("visual"), &config.vision),
            text,
        }
    }

    /// Loads a file in any of the layouts.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is of another network.
    pub fn load(
        path: &Path,
        activation: Option<ClipActivation>,
        device: Device,
    ) -> Result<Loaded<Self>, LoadError> {
        let state = openai_names(&read_tensors(path)?)?;
        let config = ClipConfig::infer(&state, path, activation)?;
        load(&state, path, device, known_and_ignored, |p| {
            Clip::new(p, &config)
        })
    }

    pub fn vision(&self) -> &VisionEncoder {
        &self.vision
    }

    /// Shape of the text tower, if there is one.
    pub fn text_config(&self) -> Option<&TextConfig> {
        self.text.as_ref().map(|text| text.encoder.config())
    }

    /// The parameter behind exp(`logit_scale`) · cos; of files with a text tower.
    pub fn logit_scale(&self) -> Option<f64> {
        self.text.as_ref().map(|text| text.logit_scale)
    }

    /// Features of `images` `[B, 3, picture, picture]` as
    /// [`ClipCrop`](crate::metrics::preparation::ClipCrop) prepares them.
    pub fn images(&self, images: &Tensor) -> VisionFeatures {
        let _no_grad = tch::no_grad_guard();
        self.vision.forward(images)
    }

    /// Embeddings `[B, E]`, of any length, of texts given by their ids `[B, S]`: the
    /// projected state of the first end marker. `None` without a text tower.
    pub fn texts(&self, tokens: &Tensor) -> Option<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let text = self.text.as_ref()?;
        let states = text.encoder.states(tokens); // [B, S, C]
        let end = text.encoder.config().vocabulary - 1;
        let first = tokens
            .eq(end)
            .to_kind(Kind::Int64)
            .cumsum(1, Kind::Int64)
            .eq(0)
            .sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Int64)
            .clamp_max(tokens.size()[1] - 1); // [B]
        let rows = Tensor::arange(tokens.size()[0], (Kind::Int64, tokens.device()));
        let at_end = states.index(&[Some(rows), Some(first)]); // [B, C]
        Some(at_end.matmul(&text.projection))
    }

    /// Embeddings `[N, E]` of `captions`, of any length, on the CPU, computed on `device`;
    /// `None` without a text tower.
    ///
    /// # Errors
    ///
    /// A vocabulary that is not CLIP's.
    pub fn embed(
        &self,
        captions: &[String],
        device: Device,
    ) -> Result<Option<Tensor>, TokenizerError> {
        let Some(text) = self.text_config() else {
            return Ok(None);
        };
        let tokenizer = ClipTokenizer::new(text.vocabulary as usize)?
            .with_context_length(text.context as usize)?;
        let mut embedded = Vec::new();
        for batch in captions.chunks(BATCH) {
            let mut ids = Vec::with_capacity(batch.len() * text.context as usize);
            for caption in batch {
                let encoding = tokenizer.encode(caption)?;
                ids.extend(encoding.ids);
                if encoding.truncated {
                    // OpenAI's tokenizer keeps the end marker of a text that is too long.
                    if let Some(last) = ids.last_mut() {
                        *last = tokenizer.end_id();
                    }
                }
            }
            let ids = Tensor::from_slice(&ids)
                .view([batch.len() as i64, text.context])
                .to_device(device);
            embedded.extend(self.texts(&ids).map(|x| x.to_device(Device::Cpu)));
        }
        Ok((!embedded.is_empty()).then(|| Tensor::cat(&embedded, 0)))
    }
}

/// The tensors under OpenAI's names (which open_clip shares), from any layout.
///
/// # Errors
///
/// Query, key and value that do not fit together, or projections that are no matrices.
pub fn openai_names(state: &StateDict) -> Result<StateDict, LoadError> {
    if !state.has_prefix("vision_model.") && !state.has_prefix("text_model.") {
        return Ok(state.clone());
    }
    let mut renamed = StateDict::default();
    for (name, entry) in state.iter() {
        let (tower, rest) = match name.split_once('.') {
            Some(("vision_model", rest)) => ("visual.", rest),
            Some(("text_model", rest)) => ("", rest),
            _ => {
                match name {
                    "visual_projection.weight" => renamed.insert("visual.proj", transposed(entry)?),
                    "text_projection.weight" => {
                        renamed.insert("text_projection", transposed(entry)?)
                    }
                    name => renamed.insert(name, entry.clone()),
                }
                continue;
            }
        };
        if let Some((block, part)) = rest
            .strip_prefix("encoder.layers.")
            .and_then(|rest| rest.split_once('.'))
        {
            let to = format!("{tower}transformer.resblocks.{block}");
            if let Some(kind) = part.strip_prefix("self_attn.q_proj.") {
                let start = name.trim_end_matches(&format!("q_proj.{kind}")).to_string();
                let of = |which: &str| format!("{start}{which}_proj.{kind}");
                if let Some(qkv) = join_qkv(state, ["q", "k", "v"].map(of))? {
                    renamed.insert(format!("{to}.attn.in_proj_{kind}"), qkv);
                }
            } else if !part.starts_with("self_attn.") || part.starts_with("self_attn.out_proj.") {
                let part = part
                    .replace("self_attn.", "attn.")
                    .replace("layer_norm1.", "ln_1.")
                    .replace("layer_norm2.", "ln_2.")
                    .replace("mlp.fc1.", "mlp.c_fc.")
                    .replace("mlp.fc2.", "mlp.c_proj.");
                renamed.insert(format!("{to}.{part}"), entry.clone());
            }
            continue;
        }
        let part = match rest {
            "embeddings.class_embedding" => "class_embedding",
            "embeddings.patch_embedding.weight" => "conv1.weight",
            "embeddings.position_embedding.weight" => "positional_embedding",
            "embeddings.token_embedding.weight" => "token_embedding.weight",
            // Spelled so.
            "pre_layrnorm.weight" => "ln_pre.weight",
            "pre_layrnorm.bias" => "ln_pre.bias",
            "post_layernorm.weight" => "ln_post.weight",
            "post_layernorm.bias" => "ln_post.bias",
            "final_layer_norm.weight" => "ln_final.weight",
            "final_layer_norm.bias" => "ln_final.bias",
            other => other,
        };
        renamed.insert(format!("{tower}{part}"), entry.clone());
    }
    Ok(renamed)
}

/// Why a tensor of such a file does not matter.
pub fn known_and_ignored(name: &str) -> Option<&'static str> {
    match name {
        "input_resolution" | "context_length" | "vocab_size" => Some("follows from the weights"),
        "attn_mask" => Some("the causal mask"),
        "logit_scale" | "logit_bias" => Some("no text tower to compare with"),
        name if name.ends_with("position_ids") => Some("the numbers of the positions"),
        _ => None,
    }
}
