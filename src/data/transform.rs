//! From pictures of any size to squares of one, by the original's rules.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::picture::Picture;
use crate::random::{sample_generator, unit, TrainingDraw};

/// Which square of a picture is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CropRule {
    /// The original's training rule: the largest square, at a random place near the
    /// centre; resized to a random size up to 9/8 of the target; a random crop of it.
    Random,
    /// The original's validation rule: the short side resized to the target; the centre.
    Center,
}

/// Makes squares of `size` pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Side of the squares in pixels.
    pub size: u32,
    pub crop: CropRule,
    /// Mirror every other picture (the original never does).
    pub flip: bool,
}

impl Transform {
    /// The square of `picture` that belongs to the global sample `sample` of the run
    /// with `seed`.
    pub fn apply(&self, picture: &Picture, seed: u64, sample: u64) -> Picture {
        let mut square = match self.crop {
            CropRule::Random => {
                self.random(picture, sample_generator(seed, sample, TrainingDraw::Crop))
            }
            CropRule::Center => picture.cover(self.size, self.size),
        };
        if self.flip && unit(&mut sample_generator(seed, sample, TrainingDraw::Flip)) < 0.5 {
            for row in square.rgb.chunks_mut(3 * self.size as usize) {
                mirror(row);
            }
        }
        square
    }

    fn random(&self, picture: &Picture, mut generator: ChaCha8Rng) -> Picture {
        let mut between = |low: u32, high: u32| {
            low + (f64::from(high - low) * unit(&mut generator)).floor() as u32
        };
        let (width, height) = (picture.width, picture.height);
        let side = width.min(height);
        let mut offset = |slack: u32| {
            let (low, high) = (3 * u64::from(slack) / 8, 5 * u64::from(slack) / 8);
            between(low as u32, (high as u32).max(low as u32 + 1))
        };
        let (top, left) = (offset(height - side), offset(width - side));
        let square = picture.crop(left, top, side, side);
        let largest = (9.0 / 8.0 * f64::from(self.size)).round_ties_even() as u32;
        let largest = side.min(largest).max(self.size);
        let resized = between(self.size, largest + 1);
        let square = square.resize(resized, resized);
        let slack = resized - self.size;
        let (top, left) = (between(0, slack + 1), between(0, slack + 1));
        square.crop(left, top, self.size, self.size)
    }
}

fn mirror(row: &mut [u8]) {
    row.reverse();
    for pixel in row.chunks_mut(3) {
        pixel.reverse();
    }
}
