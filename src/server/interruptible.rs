//! Jobs that may be given up all at once, as `/sdapi/v1/interrupt` does.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::jobs::Job;

/// The jobs of AUTOMATIC1111's clients that have not ended.
#[derive(Default)]
pub struct Interruptible(Mutex<Vec<Weak<Job>>>);

impl Interruptible {
    pub fn add(&self, job: &Arc<Job>) {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.retain(|job| job.upgrade().is_some_and(|job| !job.has_ended()));
        jobs.push(Arc::downgrade(job));
    }

    /// Those that have not ended, the oldest first.
    pub fn jobs(&self) -> Vec<Arc<Job>> {
        let jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = jobs.iter().filter_map(Weak::upgrade);
        open.filter(|job| !job.has_ended()).collect()
    }
}
