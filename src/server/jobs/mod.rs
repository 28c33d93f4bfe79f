//! From what a client asked for to pictures: jobs wait in a bounded queue, one thread
//! samples them, and whoever is interested follows their events.

mod events;
mod job;
mod made;
mod place;
mod queue;
mod sampler;

pub use events::{Event, Preview};
pub use job::{CancelOnDrop, Job, Order};
pub use made::Made;
pub use place::Place;
pub use queue::Queue;
pub use sampler::{Heard, Sampler, SamplerEnd};
