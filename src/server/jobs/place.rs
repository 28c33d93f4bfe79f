//! A place in the queue.

use tokio::sync::OwnedSemaphorePermit;

/// A place in the queue: taken before any work for a request, given back at its end.
pub struct Place(#[allow(dead_code)] OwnedSemaphorePermit);

impl Place {
    pub fn new(permit: OwnedSemaphorePermit) -> Self {
        Place(permit)
    }
}
