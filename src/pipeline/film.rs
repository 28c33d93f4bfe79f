//! The states that pictures went through, and the frames of an animation of them.

use tch::Tensor;

use super::maker::{Maker, SamplingStep};
use crate::picture::Picture;

/// The token states of a batch.
pub struct Film {
    /// States of each picture after each step, int64 `[1, L]`; nothing if not wanted.
    states: Vec<Vec<Tensor>>,
    wanted: bool,
}

impl Film {
    /// Frames of an animation, at most.
    const FRAMES: usize = 32;

    pub fn new(wanted: bool, pictures: usize) -> Self {
        Film {
            states: (0..pictures).map(|_| Vec::new()).collect(),
            wanted,
        }
    }

    /// Keeps the state of the pictures of `step`.
    pub fn record(&mut self, step: &SamplingStep) {
        if self.wanted {
            let states = step.progress.tokens.split(1, 0);
            for (picture, tokens) in step.pictures.clone().zip(&states) {
                self.states[picture].push(tokens.copy());
            }
        }
    }

    pub fn states(&self, picture: usize) -> &[Tensor] {
        &self.states[picture]
    }

    /// Evenly spaced states as pictures, the last one always.
    pub fn frames(&self, picture: usize, maker: &Maker) -> Vec<Picture> {
        let states = &self.states[picture];
        let every = states.len().div_ceil(Self::FRAMES);
        let shown = |done: usize| done.is_multiple_of(every) || done == states.len();
        (1..=states.len())
            .filter(|&done| shown(done))
            .map(|done| maker.unfinished(&states[done - 1]))
            .collect()
    }
}
