//! Pictures that are decoded while the ones before them are trained on.

use std::ops::Range;
use std::sync::Arc;

use tch::Tensor;

use crate::data::prefetch::{prefetch, Prefetched};
use crate::data::{DataError, PictureBatch, PictureLoader};

/// Parts that wait to be trained on.
const AHEAD: usize = 4;

/// Where the parts of this process lie among the samples of a run.
#[derive(Clone, Copy)]
pub struct Course {
    /// Its first sample of the step at hand.
    pub first: u64,
    /// Its samples of a step.
    pub each: u64,
    /// Samples of a part.
    pub size: u64,
    /// Samples of a step, those of all processes.
    pub step: u64,
}

impl Course {
    /// Parts of a step.
    fn parts(&self) -> u64 {
        self.each / self.size
    }

    /// The samples of part `n` from the step at hand on.
    fn part(&self, n: u64) -> Range<u64> {
        let step = self.first + n / self.parts() * self.step;
        let first = step + n % self.parts() * self.size;
        first..first + self.size
    }
}

/// The parts of a run from one on, in their order.
pub struct Ahead {
    data: Arc<PictureLoader>,
    batches: Prefetched<PictureBatch>,
    course: Course,
    /// The next part.
    next: u64,
}

impl Ahead {
    /// From the part of the step at hand that begins with the sample `first`, where `steps`
    /// are left.
    ///
    /// # Errors
    ///
    /// No thread to be had.
    pub fn new(
        data: &Arc<PictureLoader>,
        course: Course,
        first: u64,
        steps: u64,
    ) -> Result<Self, DataError> {
        let next = (first - course.first) / course.size;
        let make = {
            let data = data.clone();
            move |n| data.batch(course.part(n).start, course.size as usize)
        };
        Ok(Ahead {
            data: data.clone(),
            batches: prefetch(AHEAD, next..steps * course.parts(), make)?,
            course,
            next,
        })
    }

    /// Whether the next part is this one.
    pub fn follows(&self, part: &Range<u64>) -> bool {
        self.course.part(self.next) == *part
    }

    /// The pictures of the next part, uint8 `[B, 3, H, W]`, which are what decoding them now
    /// would give.
    ///
    /// # Errors
    ///
    /// Pictures that cannot be read.
    pub fn pictures(&mut self) -> Result<Tensor, DataError> {
        let part = self.course.part(self.next);
        self.next += 1;
        let batch = self.batches.next();
        let now = || self.data.batch(part.start, self.course.size as usize);
        Ok(batch.unwrap_or_else(now)?.pictures)
    }
}
