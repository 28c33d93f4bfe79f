//! Samples straight from the pictures of a data set, cropped and encoded anew for every
//! step: no token cache is needed, but the codec is.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::cached::{Conditions, Selected};
use super::dataset::Dataset;
use super::error::DataError;
use super::pictures::{first_readable, stack, PictureBatch, PictureLoader};
use super::prefetch::{prefetch, Prefetched};
use super::rows::SampleRow;
use super::transform::{CropRule, Transform};
use crate::codec::ImageCodec;
use crate::picture::Picture;
use crate::random::{below, sample_generator, TrainingDraw};

/// Batches that wait to be encoded.
const AHEAD: usize = 4;

/// Batches of pictures that are decoded while the ones before them are trained on.
struct Ahead {
    batches: Prefetched<PictureBatch>,
    /// First sample of the next batch.
    first: u64,
    /// Samples in each.
    size: usize,
}

/// Pictures with the codec that makes tokens of them, and the conditions of a model. An
/// epoch goes through the pictures once, with one of the captions of each drawn, or
/// through the captions, as the data set's layout has it.
pub struct LiveSamples {
    pictures: Arc<PictureLoader>,
    ahead: Cell<Option<Ahead>>,
    codec: Rc<ImageCodec>,
    device: Device,
    conditions: Conditions,
    /// Side of the squares in pixels.
    size: u32,
    /// L.
    tokens: i64,
    seed: u64,
}

/// Pictures that go through the codec at once.
const ENCODED_TOGETHER: i64 = 16;

impl LiveSamples {
    /// `codec` lies on `device` and makes `tokens` of a square with sides of `size`.
    ///
    /// # Errors
    ///
    /// Items without the caption or label that the model needs, and a data set of which
    /// no picture can be read.
    pub fn new(
        dataset: Dataset,
        codec: Rc<ImageCodec>,
        device: Device,
        conditions: Conditions,
        (size, tokens): (u32, i64),
        seed: u64,
    ) -> Result<Self, DataError> {
        conditions.check(&dataset.root, &dataset.items)?;
        let transform = Transform {
            size,
            crop: CropRule::Random,
            flip: false,
        };
        let rows = conditions.rows(dataset.epoch, &dataset.items);
        let pictures = PictureLoader::new(dataset, rows, transform, seed, false)?;
        Ok(LiveSamples {
            pictures: Arc::new(pictures),
            ahead: Cell::new(None),
            codec,
            device,
            conditions,
            size,
            tokens,
            seed,
        })
    }

    /// Samples per epoch.
    pub fn len(&self) -> u64 {
        self.pictures.len()
    }

    /// Never: an empty data set is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn dataset(&self) -> &Dataset {
        self.pictures.dataset()
    }

    pub fn tokens_per_image(&self) -> i64 {
        self.tokens
    }

    /// The consecutive samples `samples`.
    pub fn batch(&self, samples: &[u64]) -> Result<Selected, DataError> {
        let first = samples.first().copied().unwrap_or(0);
        let batch = self.decoded(first, samples.len())?;
        let captions = batch.rows.iter().zip(samples).map(|(row, &sample)| {
            let draw = || {
                let count = self.pictures.dataset().items[row.item].captions.len();
                let mut generator = sample_generator(self.seed, sample, TrainingDraw::Caption);
                below(&mut generator, count.max(1) as u64) as usize
            };
            (row.item, row.caption.unwrap_or_else(draw))
        });
        let captions: Vec<(usize, usize)> = captions.collect();
        let tokens = self.encode(&batch.pictures); // [B, L]
        self.with_conditions(tokens, &captions)
    }

    /// The pictures of the samples `first` … + `size`: those decoded ahead if the batch
    /// follows the last one, which are what decoding them now would give.
    fn decoded(&self, first: u64, size: usize) -> Result<PictureBatch, DataError> {
        let follows = |ahead: &Ahead| (ahead.first, ahead.size) == (first, size);
        let mut ahead = match self.ahead.take().filter(follows) {
            Some(ahead) => ahead,
            None => {
                let pictures = self.pictures.clone();
                let make = move |n| pictures.batch(first + n * size as u64, size);
                Ahead {
                    batches: prefetch(AHEAD, 0..u64::MAX, make)?,
                    first,
                    size,
                }
            }
        };
        ahead.first += size as u64;
        let batch = ahead.batches.next();
        self.ahead.set(Some(ahead));
        batch.unwrap_or_else(|| self.pictures.batch(first, size))
    }

    /// The first `size` samples whose pictures can be read, the middle cut out, each with
    /// its caption or the first one of its picture.
    pub fn fixed(&self, size: usize) -> Result<Selected, DataError> {
        let dataset = self.pictures.dataset();
        let readable = first_readable(dataset, self.size, size)?;
        let rows = self.pictures.rows();
        let place = |row: &SampleRow| readable.binary_search_by_key(&row.item, |r| r.0).ok();
        let shown: Vec<(i64, SampleRow)> = (0..rows.len())
            .map(|n| rows.at(n))
            .filter_map(|row| Some((place(&row)? as i64, row)))
            .take(size)
            .collect();
        let (places, rows): (Vec<i64>, Vec<SampleRow>) = shown.into_iter().unzip();
        let used = places.last().map_or(0, |&last| last as usize + 1);
        let pictures: Vec<Picture> = readable.into_iter().take(used).map(|(_, p)| p).collect();
        let tokens = self.encode(&stack(&pictures)); // [pictures, L]
        let places = Tensor::from_slice(&places).to_device(self.device);
        let tokens = tokens.index_select(0, &places); // [B, L]
        let captions: Vec<(usize, usize)> = rows
            .iter()
            .map(|row| (row.item, row.caption.unwrap_or(0)))
            .collect();
        self.with_conditions(tokens, &captions)
    }

    /// Tokens `[B, L]` of `pictures` `[B, 3, size, size]`, on the codec's device.
    fn encode(&self, pictures: &Tensor) -> Tensor {
        tch::no_grad(|| {
            // A few at a time: a validation set may be larger than any batch.
            let parts = pictures.split(ENCODED_TOGETHER, 0);
            let encode = |part: &Tensor| {
                let part = part.to_device(self.device).to_kind(Kind::Float);
                self.codec.encode(&part.contiguous())
            };
            Tensor::cat(&parts.iter().map(encode).collect::<Vec<_>>(), 0)
        })
    }

    /// `tokens` `[B, L]` with the conditions of their pictures: each the place of an item
    /// in the data set and the place of its caption.
    fn with_conditions(
        &self,
        tokens: Tensor,
        captions: &[(usize, usize)],
    ) -> Result<Selected, DataError> {
        let items = &self.pictures.dataset().items;
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for &(item, caption) in captions {
            self.conditions
                .push(&items[item], caption, &mut ids, &mut labels)?;
        }
        let rows = captions.len() as i64;
        Ok((
            tokens,
            (!ids.is_empty()).then(|| Tensor::from_slice(&ids).view([rows, -1])),
            (!labels.is_empty()).then(|| Tensor::from_slice(&labels)),
        ))
    }
}
