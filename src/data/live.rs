//! Samples straight from the pictures of a data set, cropped and encoded anew for every
//! step: no token cache is needed, but the codec is.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::Receiver;
use std::sync::Arc;

use tch::{Device, Kind, Tensor};

use super::cached::{Conditions, Selected};
use super::dataset::Dataset;
use super::error::DataError;
use super::order::below;
use super::pictures::{load, stack, PictureBatch, PictureLoader};
use super::prefetch::prefetch;
use super::transform::{CropRule, Transform};
use crate::codec::ImageCodec;
use crate::diffusion::noise::{sample_generator, TrainingDraw};

/// Batches that wait to be encoded.
const AHEAD: usize = 4;

/// Batches of pictures that are decoded while the ones before them are trained on.
struct Ahead {
    batches: Receiver<Result<PictureBatch, DataError>>,
    /// First sample of the next batch.
    first: u64,
    /// Samples in each.
    size: usize,
}

/// Pictures with the codec that makes tokens of them, and the conditions of a model. An
/// epoch goes through the pictures once, with one of the captions of each drawn.
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
    /// Items without the caption or label that the model needs.
    pub fn new(
        dataset: Dataset,
        codec: Rc<ImageCodec>,
        device: Device,
        conditions: Conditions,
        (size, tokens): (u32, i64),
        seed: u64,
    ) -> Result<Self, DataError> {
        conditions
            .check(&dataset.items)
            .map_err(|problem| DataError::format(&dataset.root, problem))?;
        let transform = Transform {
            size,
            crop: CropRule::Random,
            flip: false,
        };
        Ok(LiveSamples {
            pictures: Arc::new(PictureLoader::new(dataset, transform, seed, false)),
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

    pub fn tokens_per_image(&self) -> i64 {
        self.tokens
    }

    /// The consecutive samples `samples`; the text of those in `dropped` is empty.
    pub fn batch(&self, samples: &[u64], dropped: &[bool]) -> Result<Selected, DataError> {
        let first = samples.first().copied().unwrap_or(0);
        let batch = self.decoded(first, samples.len())?;
        let captions = batch.items.iter().zip(samples).map(|(&item, &sample)| {
            let count = self.pictures.dataset().items[item].captions.len();
            let mut generator = sample_generator(self.seed, sample, TrainingDraw::Caption);
            (item, below(&mut generator, count.max(1) as u64) as usize)
        });
        let captions: Vec<(usize, usize)> = captions.collect();
        self.selected(&batch.pictures, &captions, dropped)
    }

    /// The pictures of the samples `first` … + `size`: those decoded ahead if the batch
    /// follows the last one, which are what decoding them now would give.
    fn decoded(&self, first: u64, size: usize) -> Result<PictureBatch, DataError> {
        let follows = |ahead: &Ahead| (ahead.first, ahead.size) == (first, size);
        let mut ahead = self.ahead.take().filter(follows).unwrap_or_else(|| {
            let pictures = self.pictures.clone();
            let batches = prefetch(AHEAD, move |n| {
                Some(pictures.batch(first + n * size as u64, size))
            });
            Ahead {
                batches,
                first,
                size,
            }
        });
        ahead.first += size as u64;
        let batch = ahead.batches.recv();
        self.ahead.set(Some(ahead));
        batch.unwrap_or_else(|_| self.pictures.batch(first, size))
    }

    /// The first `size` readable pictures, the middle cut out, with their first captions.
    pub fn fixed(&self, size: usize) -> Result<Selected, DataError> {
        let transform = Transform {
            size: self.size,
            crop: CropRule::Center,
            flip: false,
        };
        let dataset = self.pictures.dataset();
        let (captions, pictures): (Vec<(usize, usize)>, Vec<_>) = (0..dataset.items.len())
            .filter_map(|item| {
                let view = load(dataset, item, &transform, self.seed, 0..1)
                    .ok()?
                    .pop()?;
                Some(((item, 0), view))
            })
            .take(size)
            .unzip();
        if pictures.is_empty() {
            let problem = "none of its pictures can be read".to_string();
            return Err(DataError::Invalid(problem));
        }
        self.selected(&stack(&pictures), &captions, &vec![false; captions.len()])
    }

    /// Tokens and conditions of `pictures` `[B, 3, size, size]`, each with its place in
    /// the data set and the place of its caption.
    fn selected(
        &self,
        pictures: &Tensor,
        captions: &[(usize, usize)],
        dropped: &[bool],
    ) -> Result<Selected, DataError> {
        let tokens = tch::no_grad(|| {
            // A few at a time: a validation set may be larger than any batch.
            let parts = pictures.split(ENCODED_TOGETHER, 0);
            let encode = |part: &Tensor| {
                let part = part.to_device(self.device).to_kind(Kind::Float);
                self.codec.encode(&part.contiguous())
            };
            Tensor::cat(&parts.iter().map(encode).collect::<Vec<_>>(), 0)
        });
        let items = &self.pictures.dataset().items;
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for (&(item, caption), &dropped) in captions.iter().zip(dropped) {
            self.conditions
                .push(&items[item], caption, dropped, &mut ids, &mut labels)?;
        }
        let rows = captions.len() as i64;
        Ok((
            tokens.to_device(Device::Cpu),
            (!ids.is_empty()).then(|| Tensor::from_slice(&ids).view([rows, -1])),
            (!labels.is_empty()).then(|| Tensor::from_slice(&labels)),
        ))
    }
}
