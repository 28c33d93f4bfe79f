//! Training through the real binary on tiny models: exactness of resuming, survival of
//! kills, learning, and what is refused.

mod bases;
mod dropout;
mod growing;
mod learning;
mod muon;
mod official;
pub mod place;
mod ranks;
mod recompute;
mod refusals;
mod resume;
mod start;
pub mod together;
