//! Features of a set of pictures by several networks in one pass.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{sync_channel, SyncSender};

use rayon::prelude::*;
use sha2::{Digest, Sha256};
use tch::{Device, Tensor};

use super::cache::{FeatureCache, PictureHash};
use super::error::ComparisonError;
use super::gathered::{Gathered, SetFeatures};
use super::networks::Network;
use super::set::{PictureSet, StoredPicture};
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

    /// Keeps features in `folder` from now on.
    ///
    /// # Errors
    ///
    /// A folder that cannot be written.
    pub fn keep_in(&mut self, folder: &Path, pillow: Pillow) -> Result<(), ComparisonError> {
        let (width, key) = (self.network.width() as usize, self.network.key(pillow));
        self.cache = Some(FeatureCache::open(folder, &key, width)?);
        Ok(())
    }

    /// Whether there is a record of a picture.
    pub fn has(&self, hash: &PictureHash) -> bool {
        self.cache.as_ref().is_some_and(|cache| cache.has(hash))
    }

    /// The features of a picture, if they are kept.
    pub fn kept(&self, hash: &PictureHash) -> Option<Vec<f32>> {
        self.cache.as_ref()?.get(hash)
    }

    /// The features of each picture of a batch.
    fn features(
        &mut self,
        batch: &[Seen],
        setting: Setting,
    ) -> Result<Vec<Vec<f32>>, ComparisonError> {
        let known = |seen: &Seen| self.kept(&seen.hash);
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

impl Seen {
    fn new(name: String, picture: Picture) -> Self {
        let mut hash = Sha256::new();
        hash.update(picture.width.to_le_bytes());
        hash.update(picture.height.to_le_bytes());
        hash.update(&picture.rgb);
        Seen {
            name,
            hash: hash.finalize().into(),
            picture,
        }
    }
}

/// What pictures are sent through before the networks see them: an image codec.
pub type Through<'a> = dyn FnMut(Picture) -> Result<Picture, ComparisonError> + 'a;

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
    extract_through(set, extractors, setting, &mut Ok, stop, progress)
}

/// As [`extract`], of what becomes of the pictures of `set` on their way `through`.
///
/// # Errors
///
/// As [`extract`], and what `through` refuses.
pub fn extract_through(
    set: &PictureSet,
    extractors: &mut [Extractor],
    setting: Setting,
    through: &mut Through,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(usize),
) -> Result<SetFeatures, ComparisonError> {
    let mut gathered = Gathered::new(&set.path, extractors);
    let (sender, receiver) = sync_channel(2);
    std::thread::scope(|scope| {
        // Reading goes on while the networks compute; it ends when nobody listens.
        let reader = scope.spawn(move || read(set, &sender));
        let taken = receiver.into_iter().try_for_each(|batch| {
            if stop.load(Ordering::Relaxed) {
                return Err(ComparisonError::Stopped);
            }
            let seen = seen(set, batch, setting.crop, through)?;
            see(&mut gathered, seen, extractors, setting)?;
            progress(gathered.len());
            Ok(())
        });
        let read = reader
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        taken.and(read)
    })?;
    gathered.finish()
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

/// The decoded pictures of a batch.
fn seen(
    set: &PictureSet,
    batch: Vec<StoredPicture>,
    crop: Option<u32>,
    through: &mut Through,
) -> Result<Vec<Seen>, ComparisonError> {
    let decoded = batch
        .into_par_iter()
        .map(|item| {
            let (name, picture) = item.decode(&set.path)?;
            Ok(match crop {
                Some(side) => (name, picture.cover(side, side)),
                None => (name, picture),
            })
        })
        .collect::<Result<Vec<_>, ComparisonError>>()?;
    let sent = decoded
        .into_iter()
        .map(|(name, picture)| Ok((name, through(picture)?)))
        .collect::<Result<Vec<_>, ComparisonError>>()?;
    Ok(sent
        .into_par_iter()
        .map(|(name, picture)| Seen::new(name, picture))
        .collect())
}

/// Adds the features of a batch to `gathered`.
fn see(
    gathered: &mut Gathered,
    batch: Vec<Seen>,
    extractors: &mut [Extractor],
    setting: Setting,
) -> Result<(), ComparisonError> {
    for seen in &batch {
        gathered.check_size(&seen.name, [seen.picture.width, seen.picture.height])?;
    }
    for (place, extractor) in extractors.iter_mut().enumerate() {
        for values in extractor.features(&batch, setting)? {
            gathered.add(place, &values)?;
        }
    }
    for seen in batch {
        gathered.name(seen.name, seen.hash);
    }
    Ok(())
}
