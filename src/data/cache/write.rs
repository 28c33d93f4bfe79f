//! Writing a token cache, shard by shard.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;

use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use tch::Device;

use super::{
    shard_name, CacheHeader, CacheRecipe, CodeChoice, ShardEntry, ShardHeader, TokenCache, ENTRY,
    HEADER, SHARD, TOKENS, VERSION,
};
use crate::codec::ImageCodec;
use crate::data::dataset::Dataset;
use crate::data::error::{DataError, Skipped};
use crate::data::fingerprint::Fingerprint;
use crate::data::pictures::{load, stack};
use crate::data::prefetch::prefetch;
use crate::files::{self, sha256, sha256_of_file, FolderLock};
use crate::picture::Picture;
use crate::random::{training_uniform, TrainingDraw};
use crate::torch::host::values;

/// A codec with what identifies it.
pub struct Codec<'a> {
    pub codec: &'a ImageCodec,
    /// SHA-256 of weights and code mapping.
    pub fingerprint: &'a str,
    /// Codes K behind the mapping.
    pub codes: i64,
    pub device: Device,
}

/// What a run wrote.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    pub items: usize,
    /// Items that a former run had written.
    pub kept: usize,
    pub skipped: Vec<Skipped>,
    /// How often each code below K occurs in all views.
    pub usage: Vec<u64>,
    /// Whether `observe` ended the work before all items were done.
    pub stopped: bool,
}

/// Writes the tokens of `dataset` to the locked folder; shards of an interrupted run with
/// the same codec, recipe and items are kept. `batch` pictures are encoded together;
/// `observe` is told how many of the items are done, and may end the work: the shards that
/// are whole stay for the next run.
///
/// # Errors
///
/// A folder that holds another cache or other files, a picture that cannot be read if
/// `strict`, and no readable picture at all.
pub fn write(
    folder: &FolderLock,
    dataset: Dataset,
    codec: &Codec,
    recipe: &CacheRecipe,
    batch: usize,
    strict: bool,
    observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Summary, DataError> {
    let out = folder.folder();
    let side = i64::from(recipe.transform.size) / codec.codec.config().factor();
    let mut header = CacheHeader {
        format_version: VERSION,
        codec: codec.fingerprint.to_string(),
        codes: codec.codes,
        grid: [side, side],
        recipe: recipe.clone(),
        layout: dataset.layout,
        epoch: dataset.epoch,
        dataset: Fingerprint::of_items(&dataset.items).sha256,
        shards: Vec::new(),
        skipped: dataset.skipped.clone(),
    };
    let finished = header.check_folder(out)?;
    let cache = header.identity(out)?;

    let mut summary = Summary {
        usage: vec![0; codec.codes as usize],
        ..Summary::default()
    };
    let dataset = std::sync::Arc::new(dataset);
    for (n, first) in (0..dataset.items.len()).step_by(SHARD).enumerate() {
        let range = first..dataset.items.len().min(first + SHARD);
        let path = out.join(shard_name(n));
        let former = super::read::finished_shard(&path, &cache, finished.as_ref())?;
        let former = match former {
            Some((shard, _)) if mended(&dataset, recipe, &range, &shard, strict)? => None,
            former => former,
        };
        let (shard, tokens) = match former {
            Some(kept) => {
                summary.kept += kept.0.items.len();
                if observe(range.end).is_break() {
                    summary.stopped = true;
                    return Ok(summary);
                }
                kept
            }
            None => {
                let made = tokens(
                    &dataset,
                    codec,
                    recipe,
                    range.clone(),
                    batch,
                    strict,
                    observe,
                )?;
                let Some(made) = made else {
                    summary.stopped = true;
                    return Ok(summary);
                };
                let shard = ShardHeader {
                    format_version: VERSION,
                    cache: cache.clone(),
                    items: made
                        .items
                        .iter()
                        .map(|&i| dataset.items[i].clone())
                        .collect(),
                    skipped: made.skipped,
                };
                write_shard(
                    &path,
                    &shard,
                    &made.tokens,
                    [recipe.views.into(), side * side],
                )?;
                (shard, made.tokens)
            }
        };
        for &token in &tokens {
            match summary.usage.get_mut(usize::from(token)) {
                Some(count) => *count += 1,
                None => {
                    let problem = format!("token {token}, expected below {}", codec.codes);
                    return Err(DataError::format(&path, problem));
                }
            }
        }
        header.shards.push(ShardEntry {
            file: shard_name(n),
            items: shard.items.len(),
            sha256: sha256_of_file(&path)?,
        });
        summary.items += shard.items.len();
        header.skipped.extend(shard.skipped);
    }
    if summary.items == 0 {
        let first = header.skipped.first().map(Skipped::to_string);
        return Err(DataError::Unusable {
            path: dataset.root.clone(),
            problem: format!("no picture could be read; {}", first.unwrap_or_default()),
        });
    }
    let path = out.join(HEADER);
    let text = serde_json::to_string_pretty(&header).map_err(|e| DataError::format(&path, e))?;
    files::write(&path, text + "\n")?;
    summary.skipped = header.skipped;
    Ok(summary)
}

impl CacheHeader {
    /// SHA-256 of everything that is known before the first shard.
    fn identity(&self, out: &Path) -> Result<String, DataError> {
        let bytes = serde_json::to_vec(self).map_err(|e| DataError::format(out, e))?;
        Ok(sha256(&bytes))
    }

    /// The header of the finished cache in the folder, if there is one; refuses a folder
    /// of another cache or of other files.
    fn check_folder(&self, out: &Path) -> Result<Option<CacheHeader>, DataError> {
        if !TokenCache::is_at(out) {
            return only_hidden(out).map(|()| None);
        }
        if !out.join(HEADER).exists() {
            return Ok(None);
        }
        let found = super::read::header(out)?;
        let other = |what: &str| {
            let problem = format!("is the cache of another {what}; give another folder");
            Err(DataError::format(out, problem))
        };
        if found.codec != self.codec {
            return other("codec");
        }
        if found.recipe != self.recipe {
            return other("recipe (crop, views, seed or choice of codes)");
        }
        if found.dataset != self.dataset {
            return other("data set");
        }
        Ok(Some(found))
    }
}

/// Refuses a folder of other files. Hidden ones are what a killed run leaves.
fn only_hidden(folder: &Path) -> Result<(), DataError> {
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let name = entry.map_err(DataError::io(folder))?.file_name();
        if !name.as_encoded_bytes().starts_with(b".") {
            let name = name.to_string_lossy();
            let problem = format!("holds {name} and is no token cache; give another folder");
            return Err(DataError::format(folder, problem));
        }
    }
    Ok(())
}

/// Tokens of a range of items: `[items, views, L]` in one vector.
struct Made {
    tokens: Vec<u16>,
    items: Vec<usize>,
    skipped: Vec<Skipped>,
}

/// Whether any of the items of `range` that a former run left out of `shard` can be read
/// now: their files may have been mended since.
///
/// # Errors
///
/// Those that still cannot be read, if `strict`.
fn mended(
    dataset: &Dataset,
    recipe: &CacheRecipe,
    range: &Range<usize>,
    shard: &ShardHeader,
    strict: bool,
) -> Result<bool, DataError> {
    if shard.skipped.is_empty() {
        return Ok(false);
    }
    let left_out: Vec<usize> = range
        .clone()
        .filter(|&place| !shard.items.contains(&dataset.items[place]))
        .collect();
    let skipped: Vec<Skipped> = left_out
        .par_iter()
        .filter_map(|&place| load(dataset, place, &recipe.transform, recipe.seed, 0..0).err())
        .collect();
    if strict && !skipped.is_empty() {
        return Err(DataError::Strict { skipped });
    }
    Ok(skipped.len() < left_out.len())
}

/// Decodes ahead on other threads and encodes here; nothing if `observe` ends the work.
fn tokens(
    dataset: &std::sync::Arc<Dataset>,
    codec: &Codec,
    recipe: &CacheRecipe,
    range: Range<usize>,
    batch: usize,
    strict: bool,
    observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
) -> Result<Option<Made>, DataError> {
    let views = recipe.views as usize;
    let per_batch = batch.div_ceil(views).max(1);
    let decoded = {
        let (dataset, recipe, range) = (dataset.clone(), recipe.clone(), range.clone());
        let batches = range.len().div_ceil(per_batch) as u64;
        prefetch(2, 0..batches, move |n| {
            let first = range.start + n as usize * per_batch;
            let part = first..range.end.min(first + per_batch);
            Ok(decode_views(&dataset, &recipe, part))
        })?
    };
    let mut made = Made {
        tokens: Vec::new(),
        items: Vec::new(),
        skipped: Vec::new(),
    };
    let mut done = range.start;
    for part in decoded {
        let part = part?;
        let before = made.skipped.len();
        let mut pictures = Vec::new();
        let mut samples = Vec::new();
        done += part.len();
        for (place, loaded) in part {
            match loaded {
                Ok(squares) => {
                    let first = (place * views) as u64;
                    samples.extend(first..first + views as u64);
                    pictures.extend(squares);
                    made.items.push(place);
                }
                Err(skipped) => made.skipped.push(skipped),
            }
        }
        if strict && made.skipped.len() > before {
            let skipped = made.skipped.split_off(before);
            return Err(DataError::Strict { skipped });
        }
        let together = pictures_together(codec, recipe, batch);
        let groups = pictures.chunks(together).zip(samples.chunks(together));
        for (pictures, samples) in groups {
            made.tokens.extend(encode(codec, recipe, pictures, samples));
        }
        // After the last part the shard is as good as written.
        if observe(done).is_break() && done < range.end {
            return Ok(None);
        }
    }
    Ok(Some(made))
}

/// How many pictures are encoded together: `batch`, or fewer where every code of every
/// position needs a number of noise.
fn pictures_together(codec: &Codec, recipe: &CacheRecipe, batch: usize) -> usize {
    const MOST_NUMBERS: i64 = 1 << 24;
    match recipe.choice {
        CodeChoice::Argmax => batch,
        CodeChoice::Sampled => {
            let [positions, codes] = noise_shape(codec, recipe);
            batch.min((MOST_NUMBERS / (positions * codes)).max(1) as usize)
        }
    }
}

/// Positions of a picture, and codes of the codebook.
fn noise_shape(codec: &Codec, recipe: &CacheRecipe) -> [i64; 2] {
    let config = codec.codec.config();
    let side = i64::from(recipe.transform.size) / config.factor();
    [side * side, config.codebook]
}

type Decoded = Vec<(usize, Result<Vec<Picture>, Skipped>)>;

fn decode_views(dataset: &Dataset, recipe: &CacheRecipe, places: Range<usize>) -> Decoded {
    let views = u64::from(recipe.views);
    let decode = |place: usize| {
        let samples = place as u64 * views..(place as u64 + 1) * views;
        (
            place,
            load(dataset, place, &recipe.transform, recipe.seed, samples),
        )
    };
    places.into_par_iter().map(decode).collect()
}

/// `[B · L]` tokens of `pictures`, row-major.
fn encode(codec: &Codec, recipe: &CacheRecipe, pictures: &[Picture], samples: &[u64]) -> Vec<u16> {
    let _no_grad = tch::no_grad_guard();
    let images = stack(pictures)
        .to_device(codec.device)
        .to_kind(tch::Kind::Float)
        .contiguous(); // [B, 3, H, W]
    let tokens = match recipe.choice {
        CodeChoice::Argmax => codec.codec.encode(&images), // [B, L]
        CodeChoice::Sampled => {
            let [positions, codes] = noise_shape(codec, recipe);
            let draw = TrainingDraw::Codec;
            let uniform = training_uniform(recipe.seed, samples, draw, positions * codes);
            let exponential = (1.0f64 - uniform).log().neg();
            let exponential = exponential.view([-1, positions, codes]); // [B, L, N]
            codec
                .codec
                .encode_sampled(&images, &exponential.to_device(codec.device))
        }
    };
    let tokens: Vec<i64> = values(&tokens);
    tokens.into_iter().map(|token| token as u16).collect()
}

fn write_shard(
    path: &Path,
    header: &ShardHeader,
    tokens: &[u16],
    [views, length]: [i64; 2],
) -> Result<(), DataError> {
    let problem = |e: &dyn ToString| DataError::format(path, e.to_string());
    let entry = serde_json::to_string(header).map_err(|e| problem(&e))?;
    let bytes: Vec<u8> = tokens
        .iter()
        .flat_map(|token| token.to_le_bytes())
        .collect();
    let shape = vec![header.items.len(), views as usize, length as usize];
    let view = TensorView::new(Dtype::U16, shape, &bytes).map_err(|e| problem(&e))?;
    let metadata = HashMap::from([(ENTRY.to_string(), entry)]);
    let file = safetensors::serialize([(TOKENS, view)], Some(metadata)).map_err(|e| problem(&e))?;
    Ok(files::write(path, file)?)
}
