//! Samples in memory: a file of tokens.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors};
use tch::{Kind, Tensor};

use super::error::{DataError, SamplesError};
use crate::files;

/// Bytes of the largest file that is taken into memory.
const MOST_BYTES: u64 = 256 << 30;

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
    ///
    /// # Errors
    ///
    /// A path that does not exist, a file of another kind or cut short, and tensors of
    /// other kinds or shapes.
    pub fn read(path: &Path) -> Result<Self, DataError> {
        let bytes = files::read(path, MOST_BYTES)?;
        let whole = SafeTensors::deserialize(&bytes);
        let tensors = whole.map_err(|source| DataError::NoTokens {
            path: path.to_path_buf(),
            source,
        })?;
        let find = |name: &'static str| tensors.tensor(name).ok().map(|view| tensor(name, &view));
        let read = || {
            let samples = Samples {
                tokens: find("tokens").ok_or(SamplesError::NoTokens)??,
                text_ids: find("text_ids").transpose()?,
                labels: find("labels").transpose()?,
            };
            samples.check()?;
            Ok(samples)
        };
        read().map_err(|source: SamplesError| DataError::SamplesFile {
            path: path.to_path_buf(),
            source,
        })
    }

    /// Whether the tensors belong together; the problem if not.
    pub(super) fn check(&self) -> Result<(), SamplesError> {
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
                return Err(SamplesError::Shape {
                    name,
                    kind: tensor.kind(),
                    size,
                    rank,
                    count,
                });
            }
        }
        if count == 0 {
            return Err(SamplesError::Empty);
        }
        Ok(())
    }
}

fn tensor(
    name: &'static str,
    view: &safetensors::tensor::TensorView,
) -> Result<Tensor, SamplesError> {
    let found = view.dtype();
    if found != Dtype::I64 {
        return Err(SamplesError::Type { name, found });
    }
    let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    Ok(Tensor::from_data_size(view.data(), &shape, Kind::Int64))
}
