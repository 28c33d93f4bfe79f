//! A job: what was asked for, what happened so far.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::events::Event;
use super::made::Made;
use super::place::Place;
use crate::codec::Rounding;
use crate::diffusion::SamplerConfig;
use crate::pipeline::{EditRecord, PictureOptions, Request};
use crate::server::error::ApiError;
use crate::server::id::random_id;

/// Pictures to make, checked against the model.
#[derive(Clone, Debug)]
pub struct Order {
    pub requests: Vec<Request>,
    pub options: PictureOptions,
    /// Unfinished pictures wanted of each.
    pub previews: usize,
    /// Whether the steps are events.
    pub steps: bool,
    /// Whether they say the entropy.
    pub entropy: bool,
}

/// What two jobs must have in common to be made together.
#[derive(Clone, Debug, PartialEq)]
pub struct Alike {
    sampler: SamplerConfig,
    rounding: Rounding,
    negative_prompt: Option<String>,
    edit: Option<EditRecord>,
}

impl Order {
    pub fn alike(&self) -> Alike {
        Alike {
            sampler: self.options.sampler(),
            rounding: self.options.rounding,
            negative_prompt: self.options.negative_prompt.clone(),
            edit: self.options.edit.as_ref().map(|edit| edit.record().clone()),
        }
    }
}

/// A job and its place in the queue.
pub struct Job {
    pub id: String,
    pub order: Order,
    pub alike: Alike,
    cancelled: AtomicBool,
    events: Mutex<Vec<Arc<Event>>>,
    /// How many events there are.
    count: watch::Sender<usize>,
    place: Mutex<Option<Place>>,
}

impl Job {
    pub fn new(order: Order, place: Place) -> Self {
        Job {
            id: random_id(),
            alike: order.alike(),
            order,
            cancelled: AtomicBool::new(false),
            events: Mutex::default(),
            count: watch::Sender::new(0),
            place: Mutex::new(Some(place)),
        }
    }

    /// Something happened. Nothing does after the last event.
    pub fn push(&self, event: Event) {
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        if events.last().is_some_and(|last| last.is_last()) {
            return;
        }
        let ends = event.is_last();
        events.push(Arc::new(event));
        let count = events.len();
        drop(events);
        if ends {
            let place = self
                .place
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            drop(place);
        }
        self.count.send_replace(count);
    }

    /// Gives it up: it stops before its next step.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
        self.push(Event::Cancelled);
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    pub fn has_ended(&self) -> bool {
        self.events().last().is_some_and(|last| last.is_last())
    }

    /// Whether a client gave it up.
    pub fn was_given_up(&self) -> bool {
        let events = self.events();
        events
            .last()
            .is_some_and(|last| matches!(last.as_ref(), Event::Cancelled))
    }

    /// What happened so far.
    pub fn events(&self) -> Vec<Arc<Event>> {
        self.events
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Its pictures so far, by their place.
    pub fn pictures(&self) -> Vec<(usize, Arc<Made>)> {
        let finished = |event: &Arc<Event>| match event.as_ref() {
            Event::Picture { index, made } => Some((*index, made.clone())),
            _ => None,
        };
        self.events().iter().filter_map(finished).collect()
    }

    /// Event `index`, when it happens; none after the last.
    pub async fn event(&self, index: usize) -> Option<Arc<Event>> {
        let mut count = self.count.subscribe();
        loop {
            {
                let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(event) = events.get(index) {
                    return Some(event.clone());
                }
                if events.last().is_some_and(|last| last.is_last()) {
                    return None;
                }
            }
            // The sender lives as long as the job.
            count.changed().await.ok()?;
        }
    }

    /// All its pictures, when they are made.
    ///
    /// # Errors
    ///
    /// What ended it otherwise.
    pub async fn finished(&self) -> Result<Vec<Arc<Made>>, ApiError> {
        let mut index = 0;
        while let Some(event) = self.event(index).await {
            match event.as_ref() {
                Event::Error(error) => return Err(error.clone()),
                Event::Cancelled => {
                    return Err(ApiError::unavailable("the job was given up"));
                }
                _ => index += 1,
            }
        }
        let mut pictures = self.pictures();
        pictures.sort_by_key(|(index, _)| *index);
        Ok(pictures.into_iter().map(|(_, made)| made).collect())
    }
}

/// Cancels a job when its client has gone away.
pub struct CancelOnDrop(pub Arc<Job>);

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        self.0.cancel();
    }
}
