//! Entries made of other entries: what one layout stores in one tensor and another in
//! several, in another shape, order or number format. Nothing is read until it is
//! asked for, except where rows are chosen.

use std::ops::Range;
use std::path::PathBuf;

use tch::{Kind, Tensor};

use super::error::LoadError;
use super::pytorch::DType;
use super::state_dict::{kind_of, Entry, Source};
use crate::torch::host::bytes;

impl Entry {
    fn problem(&self, problem: impl Into<String>) -> LoadError {
        LoadError::Tensor {
            file: self.file.clone(),
            key: self.key.clone(),
            problem: problem.into(),
        }
    }

    /// The same elements with another shape of as many elements.
    pub fn reshaped(&self, shape: &[i64]) -> Result<Entry, LoadError> {
        let entry = Entry {
            shape: shape.to_vec(),
            ..self.clone()
        };
        if entry.numel() != self.numel() {
            let found = &self.shape;
            return Err(self.problem(format!(
                "shape {found:?}, expected the elements of {shape:?}"
            )));
        }
        Ok(entry)
    }

    /// `parts` one after the other along the first dimension. Number formats and the
    /// other dimensions must agree.
    pub fn joined(parts: &[Entry]) -> Result<Entry, LoadError> {
        let first = &parts[0];
        for part in parts {
            if part.dtype != first.dtype
                || part.shape.is_empty()
                || part.shape.get(1..) != first.shape.get(1..)
            {
                return Err(part.problem(format!(
                    "{} of shape {:?} beside {} of shape {:?} in '{}', expected the same",
                    part.dtype.name(),
                    part.shape,
                    first.dtype.name(),
                    first.shape,
                    first.key
                )));
            }
        }
        let mut shape = first.shape.clone();
        if let Some(rows) = shape.first_mut() {
            *rows = parts.iter().map(|part| part.shape[0]).sum();
        }
        Ok(Entry {
            shape,
            source: Source::Joined(parts.to_vec()),
            ..first.clone()
        })
    }

    /// Part `index` of `count` equal ones along the first dimension.
    pub fn part(&self, index: usize, count: usize) -> Result<Entry, LoadError> {
        let rows = self.shape.first().copied().unwrap_or(0);
        if rows == 0 || rows % count as i64 != 0 {
            let found = &self.shape;
            return Err(self.problem(format!("shape {found:?} has not {count} equal parts")));
        }
        let mut shape = self.shape.clone();
        shape[0] = rows / count as i64;
        let bytes = self.numel() as usize * self.dtype.size() / count;
        let range: Range<usize> = index * bytes..(index + 1) * bytes;
        Ok(Entry {
            shape,
            source: Source::Part(Box::new(self.clone()), range),
            ..self.clone()
        })
    }

    /// The rows `indices` of a matrix, read now.
    pub fn rows(&self, indices: &[i64]) -> Result<Entry, LoadError> {
        let [rows, width] = self.shape[..] else {
            let found = &self.shape;
            return Err(self.problem(format!("shape {found:?}, expected a matrix")));
        };
        let bytes = self.bytes()?;
        let row = width as usize * self.dtype.size();
        let mut chosen = Vec::with_capacity(indices.len() * row);
        for &index in indices {
            if !(0..rows).contains(&index) {
                return Err(self.problem(format!("row {index} is wanted of {rows}")));
            }
            chosen.extend_from_slice(&bytes[index as usize * row..][..row]);
        }
        Ok(Entry {
            shape: vec![indices.len() as i64, width],
            source: Source::Memory(chosen.into()),
            ..self.clone()
        })
    }

    /// The same values in the number format `dtype`; integers stay as they are.
    pub fn cast(&self, dtype: DType) -> Entry {
        let floating = matches!(
            self.dtype,
            DType::F64 | DType::F32 | DType::F16 | DType::BF16
        );
        if !floating || self.dtype == dtype {
            return self.clone();
        }
        Entry {
            dtype,
            source: Source::Cast(Box::new(self.clone())),
            ..self.clone()
        }
    }

    /// An entry of `tensor`'s values that no file holds.
    pub fn in_memory(key: impl Into<String>, tensor: &Tensor) -> Result<Entry, LoadError> {
        let key = key.into();
        let dtype = match tensor.kind() {
            Kind::Float => DType::F32,
            Kind::Int64 => DType::I64,
            other => {
                return Err(LoadError::Tensor {
                    file: PathBuf::new(),
                    key,
                    problem: format!("kind {other:?} is not written"),
                })
            }
        };
        Ok(Entry {
            dtype,
            shape: tensor.size(),
            file: PathBuf::new(),
            key,
            source: Source::Memory(bytes(tensor).into()),
        })
    }

    /// The bytes of `inner` in this entry's number format; an error where a finite
    /// value leaves its range.
    pub(super) fn cast_bytes(&self, inner: &Entry) -> Result<Vec<u8>, LoadError> {
        let kind = kind_of(self.dtype).unwrap_or(Kind::Float);
        let from = inner.read()?;
        let to = from.to_kind(kind);
        let infinite = |x: &Tensor| x.isfinite().logical_not().sum(Kind::Int64).int64_value(&[]);
        if infinite(&to) > infinite(&from) {
            let largest = from.abs().max().double_value(&[]);
            return Err(self.problem(format!(
                "its largest value {largest:e} is outside the range of {}",
                self.dtype.name()
            )));
        }
        Ok(bytes(&to))
    }
}
