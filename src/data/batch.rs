//! Batches of image tokens as a pure function of (seed, global sample index): there
//! is no position or generator state to save, and any process can make any batch.

use std::path::{Path, PathBuf};

use rand_chacha::rand_core::RngCore;
use tch::{Kind, Tensor};

use crate::diffusion::noise::{sample_generator, unit, TrainingDraw};

/// Samples of one training step; tensors are on the CPU.
pub struct Batch {
    /// Clean tokens x_0, `[B, L]` int64.
    pub tokens: Tensor,
    /// Token ids of the captions, `[B, S]` int64, for text models.
    pub text_ids: Option<Tensor>,
    /// Class labels, `[B]` int64, for class models.
    pub labels: Option<Tensor>,
    /// Where the condition is dropped, `[B]` bool.
    pub dropped: Tensor,
    /// Global sample indices in the run: epoch · samples per epoch + position.
    pub samples: Vec<u64>,
}

/// Why no batch can be made.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    #[error("{}: {problem}", path.display())]
    Format { path: PathBuf, problem: String },
    #[error("{}: {source}", path.display())]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error("{0}")]
    Invalid(String),
}

/// All samples of a data set, held in memory.
#[derive(Debug)]
pub struct Samples {
    /// `[N, L]` int64.
    pub tokens: Tensor,
    /// `[N, S]` int64.
    pub text_ids: Option<Tensor>,
    /// `[N]` int64.
    pub labels: Option<Tensor>,
}

impl Samples {
    /// Reads the safetensors file `path` with int64 tensors `tokens` `[N, L]` and,
    /// where there are captions or classes, `text_ids` `[N, S]` and `labels` `[N]`.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let format = |problem: String| DataError::Format {
            path: path.to_path_buf(),
            problem,
        };
        let tensors = Tensor::read_safetensors(path).map_err(|e| format(e.to_string()))?;
        let find = |name: &str| {
            let found = tensors.iter().find(|(n, _)| n == name);
            found.map(|(_, tensor)| tensor.shallow_clone())
        };
        let samples = Samples {
            tokens: find("tokens").ok_or_else(|| format("has no tensor 'tokens'".into()))?,
            text_ids: find("text_ids"),
            labels: find("labels"),
        };
        samples.check().map_err(format)?;
        Ok(samples)
    }

    fn check(&self) -> Result<(), String> {
        let count = self.tokens.size().first().copied().unwrap_or(0);
        let expected = [
            ("tokens", Some(&self.tokens), 2),
            ("text_ids", self.text_ids.as_ref(), 2),
            ("labels", self.labels.as_ref(), 1),
        ];
        for (name, tensor, rank) in expected {
            let Some(tensor) = tensor else { continue };
            let size = tensor.size();
            if size.len() != rank || size[0] != count || tensor.kind() != Kind::Int64 {
                return Err(format!(
                    "'{name}' is {:?} of shape {size:?}, expected int64 with {rank} dimensions and {count} rows",
                    tensor.kind()
                ));
            }
        }
        if count == 0 {
            return Err("holds no samples".into());
        }
        Ok(())
    }
}

/// Draws batches from [`Samples`] in an order shuffled anew every epoch.
pub struct TokenLoader {
    data: Samples,
    seed: u64,
    drop_rate: f64,
}

impl TokenLoader {
    /// `drop_rate` in 0…1 is the share of samples whose condition is dropped.
    pub fn new(data: Samples, seed: u64, drop_rate: f64) -> Result<Self, DataError> {
        data.check().map_err(DataError::Invalid)?;
        Ok(TokenLoader {
            data,
            seed,
            drop_rate,
        })
    }

    /// Samples per epoch.
    pub fn len(&self) -> u64 {
        self.data.tokens.size()[0] as u64
    }

    /// Never: an empty data set is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Tokens per image L.
    pub fn tokens_per_image(&self) -> i64 {
        self.data.tokens.size()[1]
    }

    /// The samples `first_global_sample` … + `size`, which may span epochs.
    pub fn batch(&self, first_global_sample: u64, size: usize) -> Result<Batch, DataError> {
        let samples: Vec<u64> = (first_global_sample..).take(size).collect();
        let mut rows = Vec::with_capacity(size);
        let mut order: Option<(u64, Vec<i64>)> = None;
        for &sample in &samples {
            let (epoch, position) = (sample / self.len(), sample % self.len());
            let known = order.take().filter(|(of, _)| *of == epoch);
            let (_, permutation) =
                order.insert(known.unwrap_or_else(|| (epoch, self.permutation(epoch))));
            rows.push(permutation[position as usize]);
        }
        let dropped: Vec<bool> = samples
            .iter()
            .map(|&sample| {
                let mut generator = sample_generator(self.seed, sample, TrainingDraw::Dropout);
                unit(&mut generator) < self.drop_rate
            })
            .collect();
        let rows = Tensor::from_slice(&rows);
        let select = |t: &Tensor| t.index_select(0, &rows);
        Ok(Batch {
            tokens: select(&self.data.tokens),
            text_ids: self.data.text_ids.as_ref().map(select),
            labels: self.data.labels.as_ref().map(select),
            dropped: Tensor::from_slice(&dropped),
            samples,
        })
    }

    /// The first `size` samples in stored order, nothing dropped: for validation.
    pub fn fixed(&self, size: usize) -> Batch {
        let size = (size as u64).clamp(1, self.len());
        let first = |t: &Tensor| t.narrow(0, 0, size as i64);
        Batch {
            tokens: first(&self.data.tokens),
            text_ids: self.data.text_ids.as_ref().map(first),
            labels: self.data.labels.as_ref().map(first),
            dropped: Tensor::zeros([size as i64], (Kind::Bool, tch::Device::Cpu)),
            samples: (0..size).collect(),
        }
    }

    /// Fisher–Yates shuffle of the rows.
    fn permutation(&self, epoch: u64) -> Vec<i64> {
        let mut generator = sample_generator(self.seed, epoch, TrainingDraw::Order);
        let mut rows: Vec<i64> = (0..self.len() as i64).collect();
        for i in (1..rows.len()).rev() {
            // The bias of the remainder is below 2⁻³² for any data set in memory.
            rows.swap(i, (generator.next_u64() % (i as u64 + 1)) as usize);
        }
        rows
    }
}
