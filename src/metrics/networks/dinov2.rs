//! DINOv2 (arXiv 2304.07193): the vision transformer whose class token FD-DINOv2 compares.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::weights::{join_qkv, load, telling_shape, Loaded};
use crate::checkpoint::{read_tensors, LoadError, StateDict};
use crate::size::{check_sizes, LARGEST, MOST};
use crate::torch::attention::{attend_joined, Mask};
use crate::torch::{Init, LayerNorm, Linear, Params};

/// How the table of positions comes to the grid of another picture size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PositionTable {
    /// As facebook's code (torch.hub) does: scaled by (n + 0.1) / M for a grid of n from
    /// one of M. Published FD-DINOv2 figures come from it.
    #[default]
    Hub,
    /// As transformers does: scaled by n / M.
    Transformers,
}

/// Shape of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Dinov2Config {
    /// Width D: 384, 768 (B/14) or 1024 (L/14).
    pub width: i64,
    pub layers: i64,
    /// Attention heads: width / 64 in every released model.
    pub heads: i64,
    /// Hidden width of the feed-forward parts.
    pub hidden: i64,
    /// Pixels a side of a patch.
    pub patch: i64,
    /// Patches a side of the table of positions: 37 in released files.
    pub table: i64,
    pub positions: PositionTable,
}

/// Pixels a side of what FD-DINOv2 compares.
pub const SIDE: u32 = 224;
const EPSILON: f64 = 1e-6;
/// In messages.
const WHAT: &str = "a DINOv2 network";

impl Dinov2Config {
    /// From the shapes of tensors under facebook's names.
    ///
    /// # Errors
    ///
    /// Tensors of something else.
    pub fn infer(state: &StateDict, path: &Path) -> Result<Self, LoadError> {
        let shape = |name: &str, dimensions| telling_shape(state, path, name, dimensions, WHAT);
        let patches = shape("patch_embed.proj.weight", 4)?;
        let table = shape("pos_embed", 3)?[1] - 1;
        let config = Dinov2Config {
            width: patches[0],
            layers: state.count_indexed("blocks."),
            heads: (patches[0] / 64).max(1),
            hidden: shape("blocks.0.mlp.fc1.weight", 2)?[0],
            patch: patches[2],
            table: (table.max(0) as f64).sqrt().round() as i64,
            positions: PositionTable::default(),
        };
        config.check(table, path)?;
        Ok(config)
    }

    /// Whether such a network can be built, with a table of so many `positions`.
    fn check(&self, positions: i64, path: &Path) -> Result<(), LoadError> {
        let sizes = check_sizes(&[
            ("width", self.width, LARGEST),
            ("layers", self.layers, MOST),
            ("hidden", self.hidden, LARGEST),
            ("patch", self.patch, MOST),
            ("table", self.table, MOST),
        ]);
        sizes.map_err(|e| LoadError::Config {
            path: path.to_path_buf(),
            source: e.of_part(format!("not {WHAT}")),
        })?;
        let problem = match () {
            () if self.table * self.table != positions => {
                format!("{positions} positions, which are no square")
            }
            () if self.width % self.heads != 0 => {
                format!("{} heads do not divide width {}", self.heads, self.width)
            }
            () => return Ok(()),
        };
        Err(LoadError::Format {
            path: path.to_path_buf(),
            problem: format!("not {WHAT}: {problem}"),
        })
    }
}

struct Block {
    norm1: LayerNorm,
    qkv: Linear, // D → 3D: query, key, value
    proj: Linear,
    ls1: Tensor, // [D]
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    ls2: Tensor, // [D]
    heads: i64,
}

impl Block {
    fn new(p: &Params, config: &Dinov2Config) -> Self {
        let (width, hidden) = (config.width, config.hidden);
        Block {
            norm1: LayerNorm::new(&p.at("norm1"), width, EPSILON),
            qkv: Linear::new(&p.at("attn.qkv"), width, 3 * width),
            proj: Linear::new(&p.at("attn.proj"), width, width),
            ls1: p.at("ls1").get("gamma", &[width], Init::Ones),
            norm2: LayerNorm::new(&p.at("norm2"), width, EPSILON),
            fc1: Linear::new(&p.at("mlp.fc1"), width, hidden),
            fc2: Linear::new(&p.at("mlp.fc2"), hidden, width),
            ls2: p.at("ls2").get("gamma", &[width], Init::Ones),
            heads: config.heads,
        }
    }

    fn forward(&self, x: &Tensor) -> Tensor {
        let joined = self.qkv.forward(&self.norm1.forward(x)); // [B, N, 3D]
        let h = attend_joined(&joined, self.heads, Mask::Nothing);
        let x = x + self.proj.forward(&h) * &self.ls1;
        let hidden = self.fc1.forward(&self.norm2.forward(&x)).gelu("none");
        &x + self.fc2.forward(&hidden) * &self.ls2
    }
}

/// The network.
pub struct Dinov2 {
    config: Dinov2Config,
    patches: [Tensor; 2], // [D, 3, patch, patch] and [D]
    class: Tensor,        // [1, 1, D]
    table: Tensor,        // [1, 1 + M², D]
    blocks: Vec<Block>,
    norm: LayerNorm,
}

impl Dinov2 {
    /// Builds the network from the weights below `p`, under facebook's names.
    pub fn new(p: &Params, config: &Dinov2Config) -> Self {
        let (width, patch) = (config.width, config.patch);
        let positions = 1 + config.table * config.table;
        let proj = p.at("patch_embed.proj");
        let shape = [width, 3, patch, patch];
        Dinov2 {
            patches: [
                proj.get("weight", &shape, Init::fan_in(3 * patch * patch)),
                proj.get("bias", &[width], Init::Zeros),
            ],
            class: p.get("cls_token", &[1, 1, width], Init::Normal(1e-6)),
            table: p.get("pos_embed", &[1, positions, width], Init::Normal(0.02)),
            blocks: (0..config.layers)
                .map(|i| Block::new(&p.at("blocks").at(i), config))
                .collect(),
            norm: LayerNorm::new(&p.at("norm"), width, EPSILON),
            config: config.clone(),
        }
    }

    /// Loads the file of facebook (`dinov2_vitl14_pretrain.pth`) or of transformers
    /// (`model.safetensors` of facebook/dinov2-large).
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is of another network.
    pub fn load(
        path: &Path,
        positions: PositionTable,
        device: Device,
    ) -> Result<Loaded<Self>, LoadError> {
        let state = facebook_names(&read_tensors(path)?)?;
        let config = Dinov2Config {
            positions,
            ..Dinov2Config::infer(&state, path)?
        };
        load(&state, path, device, known_and_ignored, |p| {
            Dinov2::new(p, &config)
        })
    }

    pub fn config(&self) -> &Dinov2Config {
        &self.config
    }

    /// The same network with its table of positions brought to other grids by this rule.
    pub fn with_positions(mut self, positions: PositionTable) -> Self {
        self.config.positions = positions;
        self
    }

    /// The class token `[B, D]` of `images` `[B, 3, H, W]`, sides multiples of the patch.
    pub fn forward(&self, images: &Tensor) -> Tensor {
        self.forward_observed(images, |_| {}).select(1, 0)
    }

    /// All tokens `[B, 1 + patches, D]` behind the last norm; `observe` sees them before
    /// the first block and behind each.
    pub fn forward_observed(&self, images: &Tensor, mut observe: impl FnMut(&Tensor)) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let [weight, bias] = &self.patches;
        let side = self.config.patch;
        let patches = images.conv2d(weight, Some(bias), [side; 2], [0, 0], [1, 1], 1); // [B, D, h, w]
        let (batch, rows, columns) = (patches.size()[0], patches.size()[2], patches.size()[3]);
        let tokens = patches.flatten(2, -1).transpose(1, 2);
        let class = self.class.expand([batch, -1, -1], false);
        let mut x = Tensor::cat(&[class, tokens], 1) + self.position_table(rows, columns);
        observe(&x);
        for block in &self.blocks {
            x = block.forward(&x);
            observe(&x);
        }
        self.norm.forward(&x)
    }

    /// The table of positions for a grid: `[1, 1 + rows · columns, D]`.
    fn position_table(&self, rows: i64, columns: i64) -> Tensor {
        let side = self.config.table;
        if [rows, columns] == [side; 2] {
            return self.table.shallow_clone();
        }
        let class = self.table.narrow(1, 0, 1);
        let grid = self
            .table
            .narrow(1, 1, side * side)
            .view([1, side, side, self.config.width])
            .permute([0, 3, 1, 2]);
        let scale = |patches: i64| match self.config.positions {
            PositionTable::Hub => Some((patches as f64 + 0.1) / side as f64),
            PositionTable::Transformers => None,
        };
        let grid = grid
            .to_kind(Kind::Float)
            .upsample_bicubic2d([rows, columns], false, scale(rows), scale(columns))
            .flatten(2, -1)
            .transpose(1, 2);
        Tensor::cat(&[class, grid.to_kind(self.table.kind())], 1)
    }
}

/// The tensors under facebook's names, from either layout.
///
/// # Errors
///
/// Query, key and value that do not fit together.
pub fn facebook_names(state: &StateDict) -> Result<StateDict, LoadError> {
    // The whole classification models of transformers have a prefix.
    let prefix = ["dinov2.", ""]
        .into_iter()
        .find(|prefix| state.contains(&format!("{prefix}embeddings.cls_token")));
    let Some(prefix) = prefix else {
        return Ok(state.clone());
    };
    let mut renamed = StateDict::default();
    for (name, entry) in state.iter() {
        let Some(name) = name.strip_prefix(prefix) else {
            continue;
        };
        if let Some((block, part)) = name
            .strip_prefix("encoder.layer.")
            .and_then(|rest| rest.split_once('.'))
        {
            if let Some(kind) = part.strip_prefix("attention.attention.query.") {
                let of = |which: &str| {
                    format!("{prefix}encoder.layer.{block}.attention.attention.{which}.{kind}")
                };
                if let Some(qkv) = join_qkv(state, ["query", "key", "value"].map(of))? {
                    renamed.insert(format!("blocks.{block}.attn.qkv.{kind}"), qkv);
                }
            } else if !part.starts_with("attention.attention.") {
                let part = part
                    .replace("attention.output.dense.", "attn.proj.")
                    .replace("layer_scale1.lambda1", "ls1.gamma")
                    .replace("layer_scale2.lambda1", "ls2.gamma");
                renamed.insert(format!("blocks.{block}.{part}"), entry.clone());
            }
            continue;
        }
        let name = match name {
            "embeddings.cls_token" => "cls_token".to_string(),
            "embeddings.mask_token" => "mask_token".to_string(),
            "embeddings.position_embeddings" => "pos_embed".to_string(),
            name => name
                .replace(
                    "embeddings.patch_embeddings.projection.",
                    "patch_embed.proj.",
                )
                .replace("layernorm.", "norm."),
        };
        renamed.insert(name, entry.clone());
    }
    Ok(renamed)
}

/// Why a tensor of such a file does not matter.
pub fn known_and_ignored(name: &str) -> Option<&'static str> {
    match name {
        "mask_token" => Some("for training"),
        name if name.starts_with("classifier.") => Some("the head of a classifier"),
        _ => None,
    }
}
