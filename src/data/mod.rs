//! What the trainer reads: data sets of pictures with captions or labels, the squares
//! made of them, the token cache, and batches of tokens with their conditions.

pub mod batch;
pub mod cache;
pub mod cached;
pub mod dataset;
pub mod error;
pub mod fingerprint;
pub mod layout;
pub mod live;
pub mod locator;
mod open;
pub mod order;
pub mod pictures;
pub mod prefetch;
pub mod rows;
pub mod samples;
pub mod transform;

pub use batch::{Batch, TokenLoader};
pub use cache::TokenCache;
pub use cached::{CachedSamples, Conditions};
pub use dataset::{Dataset, Item, Split};
pub use error::{DataError, Skipped};
pub use fingerprint::Fingerprint;
pub use live::LiveSamples;
pub use locator::Locator;
pub use pictures::{PictureBatch, PictureLoader};
pub use rows::{Rows, SampleRow};
pub use samples::Samples;
pub use transform::{CropRule, Transform};
