//! Batches of image tokens as a pure function of (seed, global sample index): there
//! is no position or generator state to save, and any process can make any batch.

use tch::Tensor;

use super::cached::CachedSamples;
use super::dataset::Epoch;
use super::error::DataError;
use super::fingerprint::Fingerprint;
use super::live::LiveSamples;
use super::order::Order;
use super::samples::Samples;
use crate::random::{sample_generator, unit, TrainingDraw};

/// Samples of one training step; tensors are on the CPU but where said.
pub struct Batch {
    /// Clean tokens x_0, `[B, L]` int64; of pictures encoded for this step on the codec's
    /// device.
    pub tokens: Tensor,
    /// Token ids of the captions, `[B, S]` int64, for text models.
    pub text_ids: Option<Tensor>,
    /// Class labels, `[B]` int64, for class models.
    pub labels: Option<Tensor>,
    /// Where the condition is dropped, `[B]` bool: the model puts what stands for none in
    /// its place.
    pub dropped: Tensor,
    /// Global sample indices in the run: epoch · samples per epoch + position.
    pub samples: Vec<u64>,
}

/// Where samples come from.
enum Source {
    Memory(Samples),
    Cache(Box<CachedSamples>),
    Live(Box<LiveSamples>),
}

/// Draws batches in an order shuffled anew every epoch.
pub struct TokenLoader {
    source: Source,
    order: Order,
    seed: u64,
    drop_rate: f64,
}

impl TokenLoader {
    /// From samples in memory; `drop_rate` in 0…1 is the share of samples whose
    /// condition is dropped.
    pub fn new(data: Samples, seed: u64, drop_rate: f64) -> Result<Self, DataError> {
        data.check()?;
        let rows = data.tokens.size()[0] as u64;
        Ok(Self::over(Source::Memory(data), rows, seed, drop_rate))
    }

    /// From a token cache: view and caption are drawn for every sample.
    pub fn from_cache(data: CachedSamples, seed: u64, drop_rate: f64) -> Self {
        let rows = data.len();
        Self::over(Source::Cache(Box::new(data)), rows, seed, drop_rate)
    }

    /// Straight from pictures: crop and caption are drawn for every sample.
    pub fn from_pictures(data: LiveSamples, seed: u64, drop_rate: f64) -> Self {
        let rows = data.len();
        Self::over(Source::Live(Box::new(data)), rows, seed, drop_rate)
    }

    fn over(source: Source, rows: u64, seed: u64, drop_rate: f64) -> Self {
        TokenLoader {
            source,
            order: Order::new(seed, rows),
            seed,
            drop_rate,
        }
    }

    /// Samples per epoch.
    pub fn len(&self) -> u64 {
        match &self.source {
            Source::Memory(data) => data.tokens.size()[0] as u64,
            Source::Cache(data) => data.len(),
            Source::Live(data) => data.len(),
        }
    }

    /// What the samples are, in words.
    pub fn describe(&self) -> String {
        let of = |layout, epoch| match epoch {
            Epoch::Pictures => format!("{layout}, an epoch goes through the pictures"),
            Epoch::Captions => format!("{layout}, an epoch goes through the captions"),
        };
        match &self.source {
            Source::Memory(_) => "a file of tokens".into(),
            Source::Cache(data) => {
                let header = data.cache().header();
                format!("token cache of {}", of(header.layout, header.epoch))
            }
            Source::Live(data) => {
                let dataset = data.dataset();
                let of_set = of(dataset.layout, dataset.epoch);
                format!("{of_set}; every step encodes its pictures")
            }
        }
    }

    /// What the samples are, to compare with those of a former run.
    pub fn fingerprint(&self) -> Fingerprint {
        match &self.source {
            Source::Memory(data) => Fingerprint::of_samples(data),
            Source::Cache(data) => data.cache().fingerprint(),
            Source::Live(data) => Fingerprint::of_items(&data.dataset().items),
        }
    }

    /// Never: an empty data set is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens per image L.
    pub fn tokens_per_image(&self) -> i64 {
        match &self.source {
            Source::Memory(data) => data.tokens.size()[1],
            Source::Cache(data) => data.cache().tokens_per_image() as i64,
            Source::Live(data) => data.tokens_per_image(),
        }
    }

    /// The samples `first_global_sample` … + `size`, which may span epochs.
    pub fn batch(&self, first_global_sample: u64, size: usize) -> Result<Batch, DataError> {
        let samples: Vec<u64> = (first_global_sample..).take(size).collect();
        let rows = self.order.rows(&samples);
        let dropped: Vec<bool> = samples
            .iter()
            .map(|&sample| {
                let mut generator = sample_generator(self.seed, sample, TrainingDraw::Dropout);
                unit(&mut generator) < self.drop_rate
            })
            .collect();
        self.select(&rows, &dropped, samples, false)
    }

    /// The first `size` samples in stored order, nothing dropped, the first view and
    /// caption of each: for validation.
    pub fn fixed(&self, size: usize) -> Result<Batch, DataError> {
        let size = (size as u64).clamp(1, self.len());
        let rows: Vec<u64> = (0..size).collect();
        self.select(&rows, &vec![false; rows.len()], rows.clone(), true)
    }

    fn select(
        &self,
        rows: &[u64],
        dropped: &[bool],
        samples: Vec<u64>,
        first_of_each: bool,
    ) -> Result<Batch, DataError> {
        let (tokens, text_ids, labels) = match &self.source {
            Source::Memory(data) => {
                let rows: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
                let rows = Tensor::from_slice(&rows);
                let select = |t: &Tensor| t.index_select(0, &rows);
                (
                    select(&data.tokens),
                    data.text_ids.as_ref().map(select),
                    data.labels.as_ref().map(select),
                )
            }
            Source::Cache(data) => {
                let drawn = (!first_of_each).then_some((self.seed, samples.as_slice()));
                data.select(rows, drawn)?
            }
            Source::Live(data) if first_of_each => data.fixed(rows.len())?,
            Source::Live(data) => data.batch(&samples)?,
        };
        // Live validation goes without the pictures that cannot be read.
        let rows = tokens.size()[0] as usize;
        Ok(Batch {
            tokens,
            text_ids,
            labels,
            dropped: Tensor::from_slice(&dropped[..rows]),
            samples: samples[..rows].to_vec(),
        })
    }
}
