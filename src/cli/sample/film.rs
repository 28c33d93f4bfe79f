//! The states that pictures went through, and the frames of an animation of them.

use tch::Tensor;

use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::diffusion::sampler::Progress;
use crate::picture::Picture;
use crate::pipeline::Pipeline;

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

    /// Keeps the state of the pictures from `first` on.
    pub fn record(&mut self, first: usize, step: &Progress) {
        if self.wanted {
            for (i, tokens) in step.tokens.split(1, 0).iter().enumerate() {
                self.states[first + i].push(tokens.copy());
            }
        }
    }

    pub fn states(&self, picture: usize) -> &[Tensor] {
        &self.states[picture]
    }

    /// The picture after step `i`, with masked tokens in grey.
    pub fn frame(
        &self,
        picture: usize,
        i: usize,
        pipeline: &Pipeline,
        rounding: Rounding,
    ) -> Picture {
        let decoded = pipeline.decode_partial(&self.states[picture][i]);
        Picture::from_tensor(&to_bytes(&decoded, rounding).get(0))
    }

    /// Evenly spaced states as pictures, the last one always.
    pub fn frames(&self, picture: usize, pipeline: &Pipeline, rounding: Rounding) -> Vec<Picture> {
        let states = &self.states[picture];
        let every = states.len().div_ceil(Self::FRAMES);
        let shown = |done: usize| done.is_multiple_of(every) || done == states.len();
        (1..=states.len())
            .filter(|&done| shown(done))
            .map(|done| self.frame(picture, done - 1, pipeline, rounding))
            .collect()
    }
}
