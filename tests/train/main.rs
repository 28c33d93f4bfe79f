//! Training through the real binary on tiny models: exactness of resuming, survival of
//! kills, learning, and what is refused.

mod learning;
mod place;
mod refusals;
mod resume;
mod start;
