//! Work that is done item by item, divided among processes: pictures to make, batches to
//! validate on. Item n is done by the process n mod their count, alike in every process, and
//! nothing of it depends on that count.

use tch::{Kind, Tensor};

use super::{Ranks, RanksError};
use crate::torch::host::values;

/// Bytes before those of an item: its number and its length.
const HEADER: usize = 16;

impl Ranks {
    /// Whether this process does item `n`.
    pub fn does(&self, n: usize) -> bool {
        n % self.count() == self.rank()
    }

    /// The numbers of all items, each of which the process that does it gives; what the others
    /// have in its place must be zero. Exact: nothing is added to a number but zeros.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn numbers_of_all(&self, own: &[f64]) -> Result<Vec<f64>, RanksError> {
        let own = Tensor::from_slice(own).to_kind(Kind::Double);
        Ok(values(&self.summed(&own)?))
    }

    /// The items `(number, bytes)` of all processes by number, in every process: what the
    /// first of them writes for all.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn items_of_all(
        &self,
        mut own: Vec<(usize, Vec<u8>)>,
    ) -> Result<Vec<(usize, Vec<u8>)>, RanksError> {
        if self.is_alone() {
            own.sort_by_key(|(number, _)| *number);
            return Ok(own);
        }
        let mut packed = Vec::with_capacity(own.iter().map(|(_, b)| HEADER + b.len()).sum());
        for (number, bytes) in &own {
            packed.extend((*number as u64).to_le_bytes());
            packed.extend((bytes.len() as u64).to_le_bytes());
            packed.extend(bytes);
        }
        let lengths = self.gathered(&Tensor::from_slice(&[packed.len() as i64]))?;
        let lengths: Vec<i64> = values(&lengths);
        let longest = lengths.iter().copied().max().unwrap_or(0) as usize;
        if longest == 0 {
            return Ok(Vec::new());
        }
        packed.resize(longest, 0);
        let all: Vec<u8> = values(&self.gathered(&Tensor::from_slice(&packed))?);
        let mut items = Vec::new();
        for (part, length) in all.chunks(longest).zip(lengths) {
            let mut left = &part[..length as usize];
            while let Some((header, rest)) = left.split_at_checked(HEADER) {
                let number = |at: usize| {
                    let bytes = header[at..].first_chunk().copied();
                    u64::from_le_bytes(bytes.unwrap_or_default()) as usize
                };
                let (bytes, rest) = rest.split_at(number(8).min(rest.len()));
                items.push((number(0), bytes.to_vec()));
                left = rest;
            }
        }
        items.sort_by_key(|(number, _)| *number);
        Ok(items)
    }
}
