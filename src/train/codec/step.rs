//! What a step of a codec's training leaves.

use tch::Tensor;

use crate::codec::codebook::CodeStatistics;

/// What the backward pass of a batch leaves; scalars on the device.
pub struct CodecPart {
    pub reconstruction: Tensor,
    /// Mean (z − e)², the prices of codes included.
    pub commitment: Tensor,
    /// Encoder output, `[P, E]`.
    pub latents: Tensor,
    /// Codes, `[P]`, if quantized.
    pub codes: Option<Tensor>,
}

/// What happened in a step.
pub struct CodecReport {
    pub loss: f64,
    pub reconstruction: f64,
    pub commitment: f64,
    /// How often each code occurs in the step, N counts; empty where nothing is quantized.
    pub usage: Vec<u64>,
    /// Entries that were moved.
    pub revived: i64,
    /// Encoder output of this process's pictures, `[P, E]`, and the counts and sums by code of
    /// all pictures.
    pub quantized: Option<(Tensor, CodeStatistics)>,
}
