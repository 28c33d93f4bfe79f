//! Writing a token cache, shard by shard.

use std::collections::HashMap;
use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use tch::Device;

use super::{
    is_shard_name, shard_name, CacheHeader, CacheRecipe, CodeChoice, ShardEntry, ShardHeader,
    TokenCache, ENTRY, HEADER, SHARD, TOKENS, VERSION,
};
use crate::codec::ImageCodec;
use crate::data::dataset::Dataset;
use crate::data::error::{DataError, Skipped};
use crate::data::fingerprint::Fingerprint;
use crate::data::pictures::{load, stack};
use crate::data::prefetch::prefetch;
use crate::files::{self, sha256, sha256_of_file};
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

/// A shard that was made or kept, as [`CacheWriter::finish`] wants it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ShardReport {
    items: usize,
    /// Whether a former run had written it.
    kept: bool,
    skipped: Vec<Skipped>,
    /// How often each code below K occurs.
    usage: Vec<u64>,
    sha256: String,
}

/// The tokens of a data set in the making. Several processes may each write some of the
/// shards; the bytes do not depend on which.
pub struct CacheWriter<'a> {
    out: &'a Path,
    dataset: Arc<Dataset>,
    codec: &'a Codec<'a>,
    recipe: &'a CacheRecipe,
    /// Pictures that are encoded together.
    batch: usize,
    strict: bool,
    /// Without its shards.
    header: CacheHeader,
    /// Identity of the cache.
    cache: String,
    /// That of the finished cache in the folder, if there is one.
    finished: Option<CacheHeader>,
}

impl<'a> CacheWriter<'a> {
    /// For the folder `out`, which this process has locked, or another one for it. `batch`
    /// pictures are encoded together; if `strict`, each must be readable.
    ///
    /// # Errors
    ///
    /// A folder that holds another cache or other files.
    pub fn new(
        out: &'a Path,
        dataset: Dataset,
        codec: &'a Codec,
        recipe: &'a CacheRecipe,
        batch: usize,
        strict: bool,
    ) -> Result<Self, DataError> {
        let side = i64::from(recipe.transform.size) / codec.codec.config().factor();
        let header = CacheHeader {
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
        Ok(CacheWriter {
            finished: header.check_folder(out)?,
            cache: header.identity(out)?,
            out,
            dataset: Arc::new(dataset),
            codec,
            recipe,
            batch,
            strict,
            header,
        })
    }

    /// Writes those shards that this process `does`; those of an interrupted run with the same
    /// codec, recipe and items are kept. `observe` is told how many of the items are done, as
    /// if the others were done alike, and may end the work: the shards that are whole stay for
    /// the next run. Returns them by number, and whether the work was ended.
    ///
    /// # Errors
    ///
    /// A picture that cannot be read, if `strict`; shards that cannot be written.
    pub fn write_shards(
        &self,
        does: impl Fn(usize) -> bool,
        observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<(Vec<(usize, ShardReport)>, bool), DataError> {
        let all = self.dataset.items.len();
        let mut done = Vec::new();
        for n in (0..all.div_ceil(SHARD)).filter(|&n| does(n)) {
            let range = n * SHARD..all.min((n + 1) * SHARD);
            let path = self.out.join(shard_name(n));
            let former = super::read::finished_shard(&path, &self.cache, self.finished.as_ref())?;
            let former = match former {
                Some((shard, _)) if self.mended(&range, &shard)? => None,
                former => former,
            };
            let kept = former.is_some();
            let (shard, tokens) = match former {
                Some(former) => {
                    if observe(range.end).is_break() {
                        return Ok((done, true));
                    }
                    former
                }
                None => match self.make(&path, range, observe)? {
                    Some(made) => made,
                    None => return Ok((done, true)),
                },
            };
            let mut usage = vec![0; self.codec.codes as usize];
            for &token in &tokens {
                match usage.get_mut(usize::from(token)) {
                    Some(count) => *count += 1,
                    None => {
                        let problem = format!("token {token}, expected below {}", self.codec.codes);
                        return Err(DataError::format(&path, problem));
                    }
                }
            }
            let report = ShardReport {
                items: shard.items.len(),
                kept,
                skipped: shard.skipped,
                usage,
                sha256: sha256_of_file(&path)?,
            };
            done.push((n, report));
        }
        Ok((done, false))
    }

    /// Makes the shard `path` of the items of `range`; nothing if `observe` ends the work.
    fn make(
        &self,
        path: &Path,
        range: Range<usize>,
        observe: &mut dyn FnMut(usize) -> ControlFlow<()>,
    ) -> Result<Option<(ShardHeader, Vec<u16>)>, DataError> {
        let (dataset, codec, recipe) = (&self.dataset, self.codec, self.recipe);
        let made = tokens(
            dataset,
            codec,
            recipe,
            range,
            self.batch,
            self.strict,
            observe,
        )?;
        let Some(made) = made else {
            return Ok(None);
        };
        let items = made.items.iter().map(|&i| dataset.items[i].clone());
        let shard = ShardHeader {
            format_version: VERSION,
            cache: self.cache.clone(),
            items: items.collect(),
            skipped: made.skipped,
        };
        let [rows, columns] = self.header.grid;
        let shape = [recipe.views.into(), rows * columns];
        write_shard(path, &shard, &made.tokens, shape)?;
        Ok(Some((shard, made.tokens)))
    }

    /// Whether any of the items of `range` that a former run left out of `shard` can be read
    /// now: their files may have been mended since.
    ///
    /// # Errors
    ///
    /// Those that still cannot be read, if `strict`.
    fn mended(&self, range: &Range<usize>, shard: &ShardHeader) -> Result<bool, DataError> {
        let (dataset, recipe) = (&self.dataset, self.recipe);
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
        if self.strict && !skipped.is_empty() {
            return Err(DataError::Strict { skipped });
        }
        Ok(skipped.len() < left_out.len())
    }

    /// Finishes the cache with its `shards`, of all processes by number; with `stopped` there
    /// are more to come in the next run, and nothing is written.
    ///
    /// # Errors
    ///
    /// No readable picture at all, a header that cannot be written.
    pub fn finish(self, shards: Vec<ShardReport>, stopped: bool) -> Result<Summary, DataError> {
        let mut header = self.header;
        let mut summary = Summary {
            usage: vec![0; self.codec.codes as usize],
            stopped,
            ..Summary::default()
        };
        for (n, shard) in shards.into_iter().enumerate() {
            summary.items += shard.items;
            if shard.kept {
                summary.kept += shard.items;
            }
            for (sum, count) in summary.usage.iter_mut().zip(shard.usage) {
                *sum += count;
            }
            header.skipped.extend(shard.skipped);
            header.shards.push(ShardEntry {
                file: shard_name(n),
                items: shard.items,
                sha256: shard.sha256,
            });
        }
        if stopped {
            return Ok(summary);
        }
        if summary.items == 0 {
            let first = header.skipped.first().map(Skipped::to_string);
            return Err(DataError::Unusable {
                path: self.dataset.root.clone(),
                problem: format!("no picture could be read; {}", first.unwrap_or_default()),
            });
        }
        let path = self.out.join(HEADER);
        let text = serde_json::to_string_pretty(&header);
        let text = text.map_err(|e| DataError::format(&path, e))?;
        files::write(&path, text + "\n")?;
        summary.skipped = header.skipped;
        Ok(summary)
    }
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
            return no_others(out).map(|()| None);
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

/// Refuses a folder of other files. Hidden ones are what a killed run leaves; it may have
/// written later shards before the first.
fn no_others(folder: &Path) -> Result<(), DataError> {
    for entry in std::fs::read_dir(folder).map_err(DataError::io(folder))? {
        let name = entry.map_err(DataError::io(folder))?.file_name();
        let name = name.to_string_lossy();
        if !name.starts_with('.') && !is_shard_name(&name) {
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

/// Decodes ahead on other threads and encodes here; nothing if `observe` ends the work.
fn tokens(
    dataset: &Arc<Dataset>,
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
