//! Measures of pictures: formulas over features, and the networks that make the features.
//!
//! Letters of the shape comments: N generated pictures, M real ones, D features of a
//! picture. Formulas take features of any floating kind on any device and compute in f64,
//! in blocks, so that memory does not grow with the square of the number of pictures.

pub mod bootstrap;
pub mod clip_score;
pub mod cmmd;
mod distances;
mod error;
pub mod fd_infinity;
pub mod frechet;
pub mod inception_score;
pub mod kid;
pub mod memorisation;
pub mod moments;
pub mod networks;
pub mod npz;
pub mod prdc;
pub mod preparation;
pub mod ssim;
pub mod statistics_file;
pub mod subsets;
pub mod vendi;

pub use error::MetricError;
pub use frechet::frechet_distance;
pub use moments::{Gaussian, Moments};
