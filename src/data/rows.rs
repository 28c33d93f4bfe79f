//! What an epoch goes through once: the pictures of a data set, or their captions.

use super::dataset::{Epoch, Item};

/// The samples of an epoch in the order of the data set.
#[derive(Clone, Debug)]
pub struct Rows {
    /// First row of each item, where every caption is a row.
    starts: Option<Vec<u64>>,
    count: u64,
}

/// One sample: a picture, and which of its captions where the captions are gone through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleRow {
    /// Place of the picture in the data set's items.
    pub item: usize,
    pub caption: Option<usize>,
}

impl Rows {
    pub fn new(epoch: Epoch, items: &[Item]) -> Self {
        if epoch == Epoch::Pictures {
            return Rows {
                starts: None,
                count: items.len() as u64,
            };
        }
        let mut count = 0;
        let mut starts = Vec::with_capacity(items.len());
        for item in items {
            starts.push(count);
            count += item.captions.len() as u64;
        }
        Rows {
            starts: Some(starts),
            count,
        }
    }

    /// Samples in an epoch.
    pub fn len(&self) -> u64 {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The sample `row`, which is below [`Rows::len`].
    pub fn at(&self, row: u64) -> SampleRow {
        match &self.starts {
            None => SampleRow {
                item: row as usize,
                caption: None,
            },
            Some(starts) => {
                let item = starts.partition_point(|&start| start <= row) - 1;
                SampleRow {
                    item,
                    caption: Some((row - starts[item]) as usize),
                }
            }
        }
    }
}
