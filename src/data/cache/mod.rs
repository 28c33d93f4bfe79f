//! The token cache: a data set's pictures as codes of one codec, so that training needs
//! neither the pictures nor the codec's encoder.
//!
//! A folder with `cache.json` (the [`CacheHeader`], written last) and shards
//! `tokens-00000.safetensors`. A shard holds the tensor `tokens` `[items, views, L]` uint16
//! and, as JSON in the metadata entry `vqdiffusion-tokens`, a `ShardHeader` with the
//! items' captions and labels. Every file appears whole or not at all, so that an
//! interrupted run leaves shards that the next one keeps.

mod read;
mod write;

pub use read::TokenCache;
pub use write::{CacheWriter, Codec, ShardReport, Summary};

use serde::{Deserialize, Serialize};

use super::dataset::{DataLayout, Epoch, Item};
use super::error::Skipped;
use super::transform::Transform;
use crate::codec::ImageCodec;
use crate::files::sha256;

/// Version of both headers.
const VERSION: u32 = 1;
/// Items in a shard.
const SHARD: usize = 256;
const HEADER: &str = "cache.json";
/// Metadata entry of a shard.
const ENTRY: &str = "vqdiffusion-tokens";
/// Tensor of a shard.
const TOKENS: &str = "tokens";

/// How a code is chosen at each position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CodeChoice {
    /// The best-fitting code.
    Argmax,
    /// Drawn by the Gumbel quantizer's distribution, as the original does.
    Sampled,
}

/// Everything that decides the tokens, besides the data set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheRecipe {
    pub transform: Transform,
    /// Squares taken of each picture.
    pub views: u32,
    pub choice: CodeChoice,
    /// Key of crops, mirroring and drawn codes.
    pub seed: u64,
}

/// `cache.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CacheHeader {
    format_version: u32,
    /// SHA-256 of the codec's weights and code mapping.
    pub codec: String,
    /// Codes K; every token is below it.
    pub codes: i64,
    /// Rows and columns of the token grid.
    pub grid: [i64; 2],
    pub recipe: CacheRecipe,
    pub layout: DataLayout,
    pub epoch: Epoch,
    /// SHA-256 of the list of items.
    dataset: String,
    shards: Vec<ShardEntry>,
    /// Items left out.
    pub skipped: Vec<Skipped>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardEntry {
    file: String,
    items: usize,
    sha256: String,
}

/// In the metadata of a shard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ShardHeader {
    format_version: u32,
    /// SHA-256 of the header without shards: which cache the shard belongs to.
    cache: String,
    items: Vec<Item>,
    skipped: Vec<Skipped>,
}

/// What identifies a codec: `weights` (the fingerprint of its weights), and the code
/// mapping where there is one.
pub fn codec_identity(weights: &str, codec: &ImageCodec) -> Result<String, tch::TchError> {
    let Some(mapping) = codec.mapping() else {
        return Ok(weights.to_string());
    };
    let full: Vec<i64> = Vec::try_from(mapping.full_to_reduced())?;
    let bytes = full.iter().flat_map(|code| code.to_le_bytes());
    let bytes: Vec<u8> = weights.bytes().chain(bytes).collect();
    Ok(sha256(&bytes))
}

/// Name of shard `n`.
fn shard_name(n: usize) -> String {
    format!("tokens-{n:05}.safetensors")
}

/// Whether a file is called like a shard.
fn is_shard_name(name: &str) -> bool {
    let number = name
        .strip_prefix("tokens-")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    number.is_some_and(|n| n.len() >= 5 && n.bytes().all(|digit| digit.is_ascii_digit()))
}
