//! Features of a set of pictures by several networks in one pass.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, Receiver, SyncSender};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use super::cache::{FeatureCache, PictureHash};
use super::error::ComparisonError;
use super::networks::{Network, POOL, SPATIAL};
use super::set::{PictureSet, StoredPicture};
use crate::metrics::moments::BLOCK;
use crate::metrics::{MetricError, Moments};
use crate::picture::{Picture, Pillow};
use crate::torch::host::values;

/// Pictures that a network sees at once.
const BATCH: usize = 32;

/// A network with the features that are known already.
pub struct Extractor {
    pub network: Network,
    cache: Option<FeatureCache>,
}

/// What is done to every picture first, and where the networks compute.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Pixels a side that every picture is scaled to cover, its centre cut out.
    pub crop: Option<u32>,
    /// The release of Pillow whose resizing the preparations repeat.
    pub pillow: Pillow,
    pub device: Device,
}

/// What is known of a set after a pass.
pub struct SetFeatures {
    /// Names in the set, in order.
    pub names: Vec<String>,
    /// Width and height of every picture.
    pub size: [u32; 2],
    /// SHA-256 over the hashes of the pictures in order.
    pub sha256: String,
    /// Features `[N, D]` f32 of each network; of Inception those of the last pooling.
    pub of: Vec<Tensor>,
    /// Moments of the features of sFID, if Inception is among the networks.
    pub spatial: Option<Moments>,
}

impl Extractor {
    /// Features are kept in `cache`, if there is such a folder.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written.
    pub fn new(
        network: Network,
        pillow: Pillow,
        cache: Option<&Path>,
    ) -> Result<Self, ComparisonError> {
        let (width, key) = (network.width() as usize, network.key(pillow));
        let cache = cache.map(|folder| FeatureCache::open(folder, &key, width));
        Ok(Extractor {
            cache: cache.transpose()?,
            network,
        })
    }

    /// The features of each picture of a batch.
    fn features(
        &mut self,
        batch: &[Seen],
        setting: Setting,
    ) -> Result<Vec<Vec<f32>>, ComparisonError> {
        let known = |seen: &Seen| self.cache.as_ref()?.get(&seen.hash);
        let mut features: Vec<Option<Vec<f32>>> = batch.iter().map(known).collect();
        let missing: Vec<usize> = (0..batch.len())
            .filter(|&i| features[i].is_none())
            .collect();
        if !missing.is_empty() {
            let preparation = self.network.preparation();
            let images: Vec<Tensor> = missing
                .par_iter()
                .map(|&i| preparation.of(&batch[i].picture, setting.pillow))
                .collect();
            let images = Tensor::stack(&images, 0);
            let found = self.network.features(&images, setting.device);
            for (row, &i) in missing.iter().enumerate() {
                let values = values::<f32>(&found.get(row as i64));
                if let Some(cache) = &mut self.cache {
                    cache.put(batch[i].hash, &values)?;
                }
                features[i] = Some(values);
            }
        }
        Ok(features.into_iter().flatten().collect())
    }
}

/// A decoded picture.
struct Seen {
    name: String,
    picture: Picture,
    hash: PictureHash,
}

/// Sends every picture of `set` through the networks. `progress` hears how many are done;
/// `stop` ends the work, of which the caches keep what was done.
///
/// # Errors
///
/// A picture that cannot be read or is of another size than the first, features that are
/// not finite, a signal.
pub fn extract(
    set: &PictureSet,
    extractors: &mut [Extractor],
    setting: Setting,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<SetFeatures, ComparisonError> {
    let mut gathered = Gathered::new(extractors);
    let (sender, receiver) = sync_channel(2);
    std::thread::scope(|scope| {
        // Reading goes on while the networks compute; it ends when nobody listens.
        let reader = scope.spawn(move || read(set, &sender));
        let taken = gathered.take_all(set, receiver, extractors, setting, stop, progress);
        let read = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(read)
    })?;
    gathered.finish(set)
}

/// Sends batches of items to `sender` until they are all or nobody receives.
fn read(set: &PictureSet, sender: &SyncSender<Vec<StoredPicture>>) -> Result<(), ComparisonError> {
    let mut batch = Vec::with_capacity(BATCH);
    let outcome = set.read(&mut |item| {
        batch.push(item);
        if batch.len() == BATCH && sender.send(std::mem::take(&mut batch)).is_err() {
            return Err(ComparisonError::Stopped);
        }
        Ok(())
    });
    // Whatever comes after a last batch that nobody receives is of no interest either.
    let _ = sender.send(batch);
    outcome
}

/// What a pass has found so far.
struct Gathered {
    names: Vec<String>,
    first: Option<(String, [u32; 2])>,
    hash: Sha256,
    values: Vec<Vec<f32>>,
    widths: Vec<i64>,
    spatial: Option<Spatial>,
}

/// Features of sFID, a block at a time.
struct Spatial {
    moments: Moments,
    block: Vec<f32>,
    blocks: u64,
}

impl Spatial {
    fn add(&mut self, values: &[f32]) {
        self.block.extend(values);
        if self.block.len() as i64 == BLOCK * SPATIAL {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.block.is_empty() {
            let rows = Tensor::from_slice(&self.block).view([-1, SPATIAL]);
            self.moments.add(self.blocks, &rows);
            self.blocks += 1;
            self.block.clear();
        }
    }
}

impl Gathered {
    fn new(extractors: &[Extractor]) -> Self {
        let is_inception = |e: &Extractor| matches!(e.network, Network::Inception(..));
        Gathered {
            names: Vec::new(),
            first: None,
            hash: Sha256::new(),
            values: extractors.iter().map(|_| Vec::new()).collect(),
            widths: extractors
                .iter()
                .map(|e| match is_inception(e) {
                    true => POOL,
                    false => e.network.width(),
                })
                .collect(),
            spatial: extractors.iter().any(is_inception).then(|| Spatial {
                moments: Moments::default(),
                block: Vec::new(),
                blocks: 0,
            }),
        }
    }

    fn take_all(
        &mut self,
        set: &PictureSet,
        batches: Receiver<Vec<StoredPicture>>,
        extractors: &mut [Extractor],
        setting: Setting,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(usize),
    ) -> Result<(), ComparisonError> {
        for batch in batches {
            if stop.load(Ordering::Relaxed) {
                return Err(ComparisonError::Stopped);
            }
            let seen = batch
                .into_par_iter()
                .map(|item| see(set, item, setting.crop))
                .collect::<Result<Vec<Seen>, ComparisonError>>()?;
            seen.iter().try_for_each(|seen| self.same_size(set, seen))?;
            for (place, extractor) in extractors.iter_mut().enumerate() {
                for values in extractor.features(&seen, setting)? {
                    self.add(set, place, &values)?;
                }
            }
            for seen in seen {
                self.hash.update(seen.hash);
                self.names.push(seen.name);
            }
            progress(self.names.len());
        }
        Ok(())
    }

    fn same_size(&mut self, set: &PictureSet, seen: &Seen) -> Result<(), ComparisonError> {
        let size = [seen.picture.width, seen.picture.height];
        match &self.first {
            None => self.first = Some((seen.name.clone(), size)),
            Some((_, first_size)) if *first_size == size => {}
            Some((first, first_size)) => {
                return Err(ComparisonError::MixedSizes {
                    set: set.path.clone(),
                    first: first.clone(),
                    first_size: *first_size,
                    name: seen.name.clone(),
                    size,
                })
            }
        }
        Ok(())
    }

    /// Adds the features of the next picture by the network at `place`.
    fn add(
        &mut self,
        set: &PictureSet,
        place: usize,
        values: &[f32],
    ) -> Result<(), ComparisonError> {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ComparisonError::Metric {
                set: set.path.clone(),
                source: MetricError::NotFinite {
                    measure: "a network",
                },
            });
        }
        let (kept, rest) = values.split_at(self.widths[place] as usize);
        self.values[place].extend(kept);
        if let (false, Some(spatial)) = (rest.is_empty(), &mut self.spatial) {
            spatial.add(rest);
        }
        Ok(())
    }

    fn finish(self, set: &PictureSet) -> Result<SetFeatures, ComparisonError> {
        let Some((_, size)) = self.first else {
            return Err(ComparisonError::TooFew {
                set: set.path.clone(),
                found: 0,
                least: 1,
            });
        };
        let tensors = self.values.into_iter().zip(&self.widths);
        Ok(SetFeatures {
            size,
            sha256: crate::files::hex(&self.hash.finalize()),
            of: tensors
                .map(|(values, &width)| Tensor::from_slice(&values).view([-1, width]))
                .collect(),
            spatial: self.spatial.map(|mut spatial| {
                spatial.flush();
                spatial.moments
            }),
            names: self.names,
        })
    }
}

/// Decodes a picture and takes its hash.
fn see(set: &PictureSet, item: StoredPicture, crop: Option<u32>) -> Result<Seen, ComparisonError> {
    let (name, picture) = item.decode(&set.path)?;
    let picture = match crop {
        Some(side) => picture.cover(side, side),
        None => picture,
    };
    let mut hash = Sha256::new();
    hash.update(picture.width.to_le_bytes());
    hash.update(picture.height.to_le_bytes());
    hash.update(&picture.rgb);
    Ok(Seen {
        name,
        hash: hash.finalize().into(),
        picture,
    })
}
