//! The distance between pictures: root mean square of the differences of coarse pictures.
//!
//! A picture of 64×64 pixels becomes means over 16×16, 8×8 and 4×4 cells; the distance is
//! the root of the mean, over the three, of the mean squared difference, in steps of 8-bit
//! sRGB. Single pixels do not count, so that neither sharpness nor a shift by a pixel
//! decides; no network is involved, so that none is favoured.

use rayon::prelude::*;
use tch::Tensor;

use crate::picture::Picture;

/// Pictures of another size are scaled to cover this square, as for validation.
pub const SIDE: u32 = 64;
/// Cells a side of each level.
const LEVELS: [usize; 3] = [16, 8, 4];
/// How a report names the distance.
pub const RGB_DISTANCE: &str =
    "root mean square over 16x16, 8x8 and 4x4 cell means of 64x64 sRGB, levels weighted alike, \
     in 8-bit steps";
/// How a report names the distance that does not see hues.
pub const HUELESS_DISTANCE: &str =
    "as for sRGB, of the largest and the smallest of the three channels";

/// What of a pixel is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Red, green and blue.
    Rgb,
    /// The largest and the smallest of the three, which turning the hue in HSV keeps.
    Hueless,
}

impl View {
    fn channels(self) -> usize {
        match self {
            View::Rgb => 3,
            View::Hueless => 2,
        }
    }

    fn of(self, pixel: &[u8]) -> [u8; 3] {
        let [r, g, b] = [pixel[0], pixel[1], pixel[2]];
        match self {
            View::Rgb => [r, g, b],
            View::Hueless => [r.max(g).max(b), r.min(g).min(b), 0],
        }
    }
}

/// Vectors f64 `[N, D]` whose Euclidean distances are the distances of the pictures.
pub fn features(pictures: &[Picture], view: View) -> Tensor {
    let vectors: Vec<f64> = pictures
        .par_iter()
        .flat_map_iter(|picture| vector(&picture.cover(SIDE, SIDE), view))
        .collect();
    Tensor::from_slice(&vectors).view([pictures.len() as i64, -1]) // [N, D]
}

fn vector(picture: &Picture, view: View) -> Vec<f64> {
    let channels = view.channels();
    let mut vector = Vec::new();
    for cells in LEVELS {
        let size = SIDE as usize / cells;
        let first = vector.len();
        vector.resize(first + cells * cells * channels, 0.0);
        for (i, pixel) in picture.rgb.chunks_exact(3).enumerate() {
            let (x, y) = (i % SIDE as usize, i / SIDE as usize);
            let cell = first + ((y / size) * cells + x / size) * channels;
            for (sum, value) in vector[cell..cell + channels].iter_mut().zip(view.of(pixel)) {
                *sum += f64::from(value);
            }
        }
        // The mean of a cell, times the root of its share of the mean over cells and levels.
        let share = 1.0 / (LEVELS.len() * cells * cells * channels) as f64;
        let scale = share.sqrt() / (size * size) as f64;
        vector[first..].iter_mut().for_each(|sum| *sum *= scale);
    }
    vector
}

/// Squared distances f64 `[N, G]` between features `[N, D]` and `[G, D]`.
pub fn squared_distances(queries: &Tensor, gallery: &Tensor) -> Tensor {
    let square = |x: &Tensor| (x * x).sum_dim_intlist(1, true, None); // [N, 1]
    let products = queries.matmul(&gallery.transpose(0, 1)); // [N, G]
    (square(queries) + square(gallery).transpose(0, 1) - products * 2.0).clamp_min(0.0)
}
