//! The frames of an animation.

use tch::Tensor;

use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::diffusion::sampler::Progress;
use crate::picture::Picture;
use crate::pipeline::Pipeline;

/// The token states of a batch that an animation shows.
pub struct Film {
    /// States of each picture, oldest first.
    tokens: Vec<Vec<Tensor>>,
    every: Option<usize>,
}

impl Film {
    const FRAMES: usize = 32;

    pub fn new(wanted: bool, pictures: usize, steps: usize) -> Self {
        Film {
            tokens: (0..pictures).map(|_| Vec::new()).collect(),
            every: wanted.then(|| steps.div_ceil(Self::FRAMES)),
        }
    }

    pub fn record(&mut self, first: usize, step: &Progress) {
        let Some(every) = self.every else { return };
        if step.done.is_multiple_of(every) || step.done == step.steps {
            for (i, tokens) in step.tokens.split(1, 0).iter().enumerate() {
                self.tokens[first + i].push(tokens.copy());
            }
        }
    }

    pub fn frames(&self, picture: usize, pipeline: &Pipeline, rounding: Rounding) -> Vec<Picture> {
        self.tokens[picture]
            .iter()
            .map(|tokens| {
                let decoded = pipeline.decode_partial(tokens);
                Picture::from_tensor(&to_bytes(&decoded, rounding).get(0))
            })
            .collect()
    }
}
