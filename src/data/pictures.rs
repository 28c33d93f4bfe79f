//! Pictures of a data set as tensors: decoded in parallel, in a fixed order.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Mutex;

use rayon::prelude::*;
use tch::Tensor;

use super::dataset::Dataset;
use super::error::{DataError, Skipped};
use super::order::Order;
use super::rows::{Rows, SampleRow};
use super::transform::{CropRule, Transform};
use crate::picture::Picture;
use crate::random::{below, sample_generator, TrainingDraw};

/// Substitutes tried for a picture that cannot be read before the run gives up.
const SUBSTITUTES: usize = 100;

/// Squares of one step.
pub struct PictureBatch {
    /// `[B, 3, size, size]` uint8 on the CPU.
    pub pictures: Tensor,
    /// Which pictures these are, and which of their captions.
    pub rows: Vec<SampleRow>,
    /// Global sample indices in the run: epoch · samples per epoch + position.
    pub samples: Vec<u64>,
}

/// Draws squares from the pictures of a data set in an order shuffled anew every epoch.
///
/// A batch is a function of the files, the seed and the global sample indices alone. A
/// picture that cannot be read is replaced by another, drawn for its sample, and listed.
pub struct PictureLoader {
    dataset: Dataset,
    rows: Rows,
    transform: Transform,
    seed: u64,
    strict: bool,
    order: Order,
    skipped: Mutex<BTreeMap<usize, Skipped>>,
}

impl PictureLoader {
    /// An epoch goes through `rows`. If `strict`, a picture that cannot be read is an
    /// error instead.
    ///
    /// # Errors
    ///
    /// A data set of which no picture can be read.
    pub fn new(
        dataset: Dataset,
        rows: Rows,
        transform: Transform,
        seed: u64,
        strict: bool,
    ) -> Result<Self, DataError> {
        let mut first = None;
        let readable = (0..dataset.items.len()).any(|place| {
            let loaded = load(&dataset, place, &transform, seed, 0..0);
            loaded
                .map_err(|skipped| first.get_or_insert(skipped))
                .is_ok()
        });
        if !readable {
            return Err(none_readable(&dataset, first));
        }
        Ok(PictureLoader {
            order: Order::new(seed, rows.len()),
            dataset,
            rows,
            transform,
            seed,
            strict,
            skipped: Mutex::default(),
        })
    }

    pub fn dataset(&self) -> &Dataset {
        &self.dataset
    }

    /// What an epoch goes through.
    pub fn rows(&self) -> &Rows {
        &self.rows
    }

    /// Samples per epoch.
    pub fn len(&self) -> u64 {
        self.rows.len()
    }

    /// Never: an empty data set is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples `first` … + `size`, which may span epochs.
    pub fn batch(&self, first: u64, size: usize) -> Result<PictureBatch, DataError> {
        let samples: Vec<u64> = (first..).take(size).collect();
        let rows = self.order.rows(&samples);
        let loaded: Result<Vec<(SampleRow, Picture)>, DataError> = samples
            .par_iter()
            .zip(rows)
            .map(|(&sample, row)| self.readable(sample, row))
            .collect();
        let (rows, pictures): (Vec<SampleRow>, Vec<Picture>) = loaded?.into_iter().unzip();
        Ok(PictureBatch {
            pictures: stack(&pictures),
            rows,
            samples,
        })
    }

    /// The sample `row`, or the first readable one of those drawn for `sample`.
    fn readable(&self, sample: u64, row: u64) -> Result<(SampleRow, Picture), DataError> {
        let mut generator = sample_generator(self.seed, sample, TrainingDraw::Substitute);
        let mut row = self.rows.at(row);
        for _ in 0..SUBSTITUTES {
            match load(
                &self.dataset,
                row.item,
                &self.transform,
                self.seed,
                sample..sample + 1,
            ) {
                Ok(mut views) => {
                    if let Some(picture) = views.pop() {
                        return Ok((row, picture));
                    }
                }
                Err(skipped) if self.strict => {
                    let skipped = vec![skipped];
                    return Err(DataError::Strict { skipped });
                }
                Err(skipped) => {
                    let mut known = self.skipped.lock().unwrap_or_else(|e| e.into_inner());
                    known.entry(row.item).or_insert_with(|| {
                        log::warn!("skipped {skipped}");
                        skipped
                    });
                }
            }
            row = self.rows.at(below(&mut generator, self.len()));
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
    let picture = dataset.picture(item).map_err(|problem| Skipped {
        what: item.picture.to_string(),
        reason: problem.to_string(),
    })?;
    Ok(samples
        .map(|sample| transform.apply(&picture, seed, sample))
        .collect())
}

/// The middles of the first `count` readable pictures, scaled to squares of `size` pixels,
/// with their places in the data set: for validation. Those that cannot be read are logged.
///
/// # Errors
///
/// A data set of which no picture can be read.
pub fn first_readable(
    dataset: &Dataset,
    size: u32,
    count: usize,
) -> Result<Vec<(usize, Picture)>, DataError> {
    let transform = Transform {
        size,
        crop: CropRule::Center,
        flip: false,
    };
    let mut readable = Vec::new();
    let mut skipped = Vec::new();
    let mut next = 0..dataset.items.len();
    while readable.len() < count && !next.is_empty() {
        let places: Vec<usize> = next.by_ref().take(count - readable.len()).collect();
        let loaded: Vec<_> = places
            .into_par_iter()
            .map(|place| (place, load(dataset, place, &transform, 0, 0..1)))
            .collect();
        for (place, loaded) in loaded {
            match loaded {
                Ok(views) => readable.extend(views.into_iter().map(|view| (place, view))),
                Err(unreadable) => {
                    log::warn!("skipped {unreadable}");
                    skipped.push(unreadable);
                }
            }
        }
    }
    if readable.is_empty() {
        return Err(none_readable(dataset, skipped.into_iter().next()));
    }
    if !skipped.is_empty() {
        log::warn!(
            "{}: {} pictures cannot be read; the validation goes on without them",
            dataset.root.display(),
            skipped.len()
        );
    }
    Ok(readable)
}

fn none_readable(dataset: &Dataset, first: Option<Skipped>) -> DataError {
    let first = first.map_or(String::new(), |first| format!("; the first: {first}"));
    DataError::Unusable {
        path: dataset.root.clone(),
        problem: format!(
            "none of its {} pictures can be read{first}",
            dataset.items.len()
        ),
    }
}

/// Squares of one size as `[B, 3, H, W]` uint8, channels last in memory.
pub fn stack(pictures: &[Picture]) -> Tensor {
    let (height, width) = pictures.first().map_or((0, 0), |p| (p.height, p.width));
    let bytes: Vec<u8> = pictures.iter().flat_map(|p| &p.rgb).copied().collect();
    Tensor::from_slice(&bytes)
        .view([pictures.len() as i64, height.into(), width.into(), 3])
        .permute([0, 3, 1, 2])
}
