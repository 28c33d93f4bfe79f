//! Pictures of a data set as tensors: decoded in parallel, in a fixed order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;
use tch::Tensor;

use super::dataset::Dataset;
use super::decode::decode;
use super::error::{DataError, Skipped};
use super::order::{below, Order};
use super::transform::Transform;
use crate::diffusion::noise::{sample_generator, TrainingDraw};
use crate::picture::Picture;

/// Substitutes tried for a picture that cannot be read before the run gives up.
const SUBSTITUTES: usize = 100;

/// Squares of one step.
pub struct PictureBatch {
    /// `[B, 3, size, size]` uint8 on the CPU.
    pub pictures: Tensor,
    /// Places of the pictures in the data set's items.
    pub items: Vec<usize>,
    /// Global sample indices in the run: epoch · items + position.
    pub samples: Vec<u64>,
}

/// Draws squares from the pictures of a data set in an order shuffled anew every epoch.
///
/// A batch is a function of the files, the seed and the global sample indices alone. A
/// picture that cannot be read is replaced by another, drawn for its sample, and listed.
pub struct PictureLoader {
    dataset: Dataset,
    transform: Transform,
    seed: u64,
    strict: bool,
    order: Order,
    skipped: Mutex<BTreeMap<usize, Skipped>>,
}

impl PictureLoader {
    /// If `strict`, a picture that cannot be read is an error instead.
    pub fn new(dataset: Dataset, transform: Transform, seed: u64, strict: bool) -> Self {
        PictureLoader {
            order: Order::new(seed, dataset.items.len() as u64),
            dataset,
            transform,
            seed,
            strict,
            skipped: Mutex::default(),
        }
    }

    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// Pictures per epoch.
    pub fn len(&self) -> u64 {
        self.dataset.items.len() as u64
    }

    /// Never: an empty data set is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples `first` … + `size`, which may span epochs.
    pub fn batch(&self, first: u64, size: usize) -> Result<PictureBatch, DataError> {
        let samples: Vec<u64> = (first..).take(size).collect();
        let places = self.order.rows(&samples);
        let loaded: Result<Vec<(usize, Picture)>, DataError> = samples
            .par_iter()
            .zip(places)
            .map(|(&sample, place)| self.readable(sample, place as usize))
            .collect();
        let (items, pictures): (Vec<usize>, Vec<Picture>) = loaded?.into_iter().unzip();
        Ok(PictureBatch {
            pictures: stack(&pictures),
            items,
            samples,
        })
    }

    /// The item at `place`, or the first readable one of those drawn for `sample`.
    fn readable(&self, sample: u64, place: usize) -> Result<(usize, Picture), DataError> {
        let mut generator = sample_generator(self.seed, sample, TrainingDraw::Substitute);
        let mut place = place;
        for _ in 0..SUBSTITUTES {
            match load(
                &self.dataset,
                place,
                &self.transform,
                self.seed,
                sample..sample + 1,
            ) {
                Ok(mut views) => {
                    if let Some(picture) = views.pop() {
                        return Ok((place, picture));
                    }
                }
                Err(skipped) if self.strict => return Err(DataError::Strict { skipped }),
                Err(skipped) => {
                    let mut known = self.skipped.lock().unwrap_or_else(|e| e.into_inner());
                    known.entry(place).or_insert_with(|| {
                        log::warn!("skipped {skipped}");
                        skipped
                    });
                }
            }
            place = below(&mut generator, self.len()) as usize;
        }
        Err(DataError::Unusable {
            path: self.dataset.root.clone(),
            problem: format!("{SUBSTITUTES} pictures in a row could not be read"),
        })
    }

    /// The pictures that could not be read so far, in the order of the data set.
    pub fn skipped(&self) -> Vec<Skipped> {
        let known = self.skipped.lock().unwrap_or_else(|e| e.into_inner());
        known.values().cloned().collect()
    }
}

/// The squares of item `place` for each of `samples`, decoded once.
pub fn load(
    dataset: &Dataset,
    place: usize,
    transform: &Transform,
    seed: u64,
    samples: Range<u64>,
) -> Result<Vec<Picture>, Skipped> {
    let item = &dataset.items[place];
    let skipped = |reason: String| Skipped {
        what: item.picture.display().to_string(),
        reason,
    };
    let bytes =
        std::fs::read(dataset.root.join(&item.picture)).map_err(|e| skipped(e.to_string()))?;
    let picture = decode(&bytes).map_err(skipped)?;
    Ok(samples
        .map(|sample| transform.apply(&picture, seed, sample))
        .collect())
}

/// Squares of one size as `[B, 3, H, W]` uint8, channels last in memory.
pub fn stack(pictures: &[Picture]) -> Tensor {
    let (height, width) = pictures.first().map_or((0, 0), |p| (p.height, p.width));
    let bytes: Vec<u8> = pictures.iter().flat_map(|p| &p.rgb).copied().collect();
    Tensor::from_slice(&bytes)
        .view([pictures.len() as i64, height.into(), width.into(), 3])
        .permute([0, 3, 1, 2])
}
