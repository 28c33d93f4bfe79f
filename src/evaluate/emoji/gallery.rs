//! Real pictures to look among, and where the nearest right one stands.

use sha2::{Digest, Sha256};
use tch::{IndexOp, Tensor};

use super::asked::Ask;
use super::labelled::{EmojiLabel, LabelledFolder};
use super::pyramid::{features, squared_distances, View};
use crate::data::DataError;
use crate::picture::Picture;

/// Queries compared at a time, which bounds the memory.
const QUERIES: i64 = 256;
/// Squared distances that differ by less, in squared 8-bit steps, are equal: those of equal
/// pictures differ by rounding.
const EQUAL: f64 = 1e-6;

/// Real pictures to look among.
pub struct Gallery {
    pub labels: Vec<EmojiLabel>,
    pub pictures: Vec<Picture>,
    /// f64 `[G, D]`
    features: Tensor,
    pub view: View,
}

impl Gallery {
    /// All pictures of `folders`.
    pub fn open(folders: &[LabelledFolder], view: View) -> Result<Self, DataError> {
        let (mut labels, mut pictures) = (Vec::new(), Vec::new());
        for folder in folders {
            let all: Vec<usize> = (0..folder.labels.len()).collect();
            pictures.extend(folder.pictures(&all)?);
            labels.extend(folder.labels.iter().cloned());
        }
        Ok(Gallery {
            features: features(&pictures, view),
            labels,
            pictures,
            view,
        })
    }

    /// Whether some picture has the concept of `label`, and its style where that is asked for.
    pub fn shows(&self, label: &EmojiLabel, ask: Ask) -> bool {
        let style = |l: &EmojiLabel| ask == Ask::Name || l.style == label.style;
        let same = |l: &EmojiLabel| l.concept == label.concept && style(l);
        self.labels.iter().any(same)
    }

    /// SHA-256 of what the pictures show and of their pixels: galleries of one are the same.
    pub fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for (label, picture) in self.labels.iter().zip(&self.pictures) {
            for text in [&label.concept, &label.style] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text);
            }
            for side in [picture.width, picture.height] {
                hash.update(side.to_le_bytes());
            }
            hash.update(&picture.rgb);
        }
        crate::files::hex(&hash.finalize())
    }

    /// Squared distances of every one of `pictures` to all of the gallery, in their order.
    pub fn distances(&self, pictures: &[Picture], mut each: impl FnMut(usize, &[f64])) {
        let queries = features(pictures, self.view);
        for (n, queries) in queries.split(QUERIES, 0).iter().enumerate() {
            let distances = squared_distances(queries, &self.features); // [≤QUERIES, G]
            for row in 0..queries.size()[0] {
                let mut values = vec![0.0; self.labels.len()];
                let length = values.len();
                distances.i(row).copy_data(&mut values, length);
                each(n * QUERIES as usize + row as usize, &values);
            }
        }
    }
}

/// Where the nearest right one of some candidates stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// 1 more than the number of candidates that are nearer. Equal distances do not count
    /// as nearer: two names of one picture are both right.
    pub rank: usize,
    /// Place of the nearest right candidate.
    pub place: usize,
}

/// The standing of the right ones by their squared `distances`; those of infinite distance
/// are no candidates. `None` where none is right.
pub fn standing(distances: &[f64], right: impl Fn(usize) -> bool) -> Option<Standing> {
    let candidates = || distances.iter().enumerate().filter(|(_, d)| d.is_finite());
    let (place, wanted) = candidates()
        .filter(|(place, _)| right(*place))
        .min_by(|a, b| a.1.total_cmp(b.1))?;
    let nearer = candidates().filter(|(_, d)| **d < wanted - EQUAL).count();
    Some(Standing {
        rank: nearer + 1,
        place,
    })
}
