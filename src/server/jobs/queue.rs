//! The bounded queue between the clients and the thread that samples.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{oneshot, Semaphore};

use super::events::Event;
use super::job::Job;
use super::place::Place;
use crate::pipeline::Pipeline;
use crate::server::error::ApiError;
use crate::server::settings::MOST_JOBS;

/// A question to the model that is no job, and where the answer goes.
pub type Task = Box<dyn FnOnce(&Pipeline) + Send>;

/// What the thread does next.
pub enum Work {
    /// Pictures of jobs that are alike, each by its place in the job.
    Pictures(Vec<(Arc<Job>, usize)>),
    Task(Task),
}

struct Waiting {
    job: Arc<Job>,
    /// Its first picture that is not yet handed out.
    next: usize,
    /// The position that its client was told last.
    told: usize,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Jobs of the work that was handed out last.
    at_work: Vec<Arc<Job>>,
    tasks: VecDeque<Task>,
    /// Whether a question is being answered.
    asked: bool,
    closed: bool,
    /// Seconds that a picture takes, about.
    pace: f64,
}

pub struct Queue {
    state: Mutex<State>,
    /// Something was added, or the queue closed.
    changed: Condvar,
    places: Arc<Semaphore>,
}

impl Default for Queue {
    fn default() -> Self {
        Queue {
            state: Mutex::default(),
            changed: Condvar::new(),
            places: Arc::new(Semaphore::new(MOST_JOBS)),
        }
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one.
    ///
    /// # Errors
    ///
    /// A full queue, and one that is closed.
    pub fn place(&self) -> Result<Place, ApiError> {
        if self.state().closed {
            return Err(ApiError::unavailable("the server is ending"));
        }
        match self.places.clone().try_acquire_owned() {
            Ok(permit) => Ok(Place::new(permit)),
            Err(_) => Err(ApiError::busy(self.wait())),
        }
    }

    /// Seconds until a place is likely to be free.
    fn wait(&self) -> u64 {
        let state = self.state();
        let front = state
            .at_work
            .iter()
            .chain(state.waiting.front().map(|w| &w.job));
        let pictures = front.map(|job| job.order.requests.len()).max().unwrap_or(1);
        (pictures as f64 * state.pace).ceil().clamp(1.0, 60.0) as u64
    }

    /// Jobs that wait, and jobs at work.
    pub fn depth(&self) -> (usize, usize) {
        let state = self.state();
        let at_work = state.at_work.iter().filter(|job| !job.has_ended());
        (state.waiting.len(), at_work.count())
    }

    /// Whether there is nothing to do.
    pub fn is_idle(&self) -> bool {
        let state = self.state();
        let working = state.at_work.iter().any(|job| !job.has_ended());
        state.waiting.is_empty() && state.tasks.is_empty() && !state.asked && !working
    }

    /// Adds `job` at the end.
    pub fn add(&self, job: Arc<Job>) {
        let mut state = self.state();
        if state.closed {
            job.push(Event::Error(ApiError::unavailable("the server is ending")));
            return;
        }
        let told = state.waiting.len();
        job.push(Event::Queued { position: told });
        state.waiting.push_back(Waiting { job, next: 0, told });
        drop(state);
        self.changed.notify_all();
    }

    /// The answer of `question`, asked between two batches; `place` is given back then.
    ///
    /// # Errors
    ///
    /// A queue that is closed, a question that panics.
    pub async fn ask<T: Send + 'static>(
        &self,
        place: Place,
        question: impl FnOnce(&Pipeline) -> T + Send + 'static,
    ) -> Result<T, ApiError> {
        let (sender, receiver) = oneshot::channel();
        let task: Task = Box::new(move |pipeline| {
            if !sender.is_closed() {
                let _ = sender.send(question(pipeline)); // the client may have gone
            }
            drop(place);
        });
        {
            let mut state = self.state();
            if state.closed {
                return Err(ApiError::unavailable("the server is ending"));
            }
            state.tasks.push_back(task);
        }
        self.changed.notify_all();
        receiver.await.map_err(|_| ApiError::internal())
    }

    /// What to do next, at most `batch` pictures together; waits for it. None when the
    /// queue is closed and empty.
    pub fn next(&self, batch: usize) -> Option<Work> {
        let mut state = self.state();
        state.at_work.clear();
        state.asked = false;
        loop {
            if let Some(task) = state.tasks.pop_front() {
                state.asked = true;
                return Some(Work::Task(task));
            }
            state.drop_cancelled();
            if let Some(work) = state.pictures(batch) {
                state.tell_positions();
                return Some(Work::Pictures(work));
            }
            if state.closed {
                return None;
            }
            // Jobs are cancelled without a word: they are looked for.
            let waited = self.changed.wait_timeout(state, Duration::from_millis(500));
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A picture took so many seconds.
    pub fn took(&self, seconds: f64) {
        let mut state = self.state();
        state.pace = match state.pace {
            0.0 => seconds,
            pace => 0.8 * pace + 0.2 * seconds,
        };
    }

    /// Takes no more jobs; those that wait are made.
    pub fn close(&self) {
        self.state().closed = true;
        self.changed.notify_all();
    }

    /// Gives up what waits and what is at work; how many jobs that were.
    pub fn give_up(&self) -> usize {
        let mut state = self.state();
        state.closed = true;
        state.tasks.clear();
        let mut jobs: Vec<Arc<Job>> = state.waiting.drain(..).map(|w| w.job).collect();
        jobs.extend(state.at_work.iter().cloned());
        drop(state);
        self.changed.notify_all();
        let ended = |job: &Arc<Job>| {
            let open = !job.has_ended();
            job.push(Event::Error(ApiError::unavailable("the server is ending")));
            job.cancel();
            open
        };
        jobs.iter().filter(|job| ended(job)).count()
    }
}

impl State {
    fn drop_cancelled(&mut self) {
        self.waiting.retain(|waiting| !waiting.job.has_ended());
    }

    /// Pictures of the first job, and as far as there is room of those alike; a job with
    /// more pictures goes to the end.
    fn pictures(&mut self, batch: usize) -> Option<Vec<(Arc<Job>, usize)>> {
        let alike = self.waiting.front()?.job.alike.clone();
        let mut pictures = Vec::new();
        let mut again = Vec::new();
        let mut rest = VecDeque::new();
        for mut waiting in self.waiting.drain(..) {
            let left = waiting.job.order.requests.len() - waiting.next;
            let taken = left.min(batch - pictures.len());
            if taken == 0 || waiting.job.alike != alike {
                rest.push_back(waiting);
                continue;
            }
            let places = waiting.next..waiting.next + taken;
            pictures.extend(places.map(|place| (waiting.job.clone(), place)));
            self.at_work.push(waiting.job.clone());
            waiting.next += taken;
            if taken < left {
                again.push(waiting);
            }
        }
        rest.extend(again);
        self.waiting = rest;
        Some(pictures)
    }

    fn tell_positions(&mut self) {
        for (position, waiting) in self.waiting.iter_mut().enumerate() {
            if waiting.next == 0 && waiting.told != position {
                waiting.told = position;
                waiting.job.push(Event::Queued { position });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{Checkpoint, OpenOptions};
    use crate::pipeline::PictureOptions;
    use crate::server::jobs::job::Order;

    /// A job of so many pictures with so many steps.
    fn job(queue: &Queue, pictures: usize, steps: usize) -> Arc<Job> {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/emoji.safetensors");
        let model = Checkpoint::open(model.as_ref(), &OpenOptions::default());
        let options = PictureOptions::usual(&model.expect("a model").config);
        let options = options.steps(steps).count(pictures);
        let order = Order {
            requests: options.requests(&["red heart"]).expect("requests"),
            options,
            previews: 0,
            steps: false,
            entropy: false,
        };
        let job = Arc::new(Job::new(order, queue.place().expect("a place")));
        queue.add(job.clone());
        job
    }

    #[test]
    fn alike_jobs_share_batches_and_take_turns() {
        let queue = Queue::default();
        let (a, b, c) = (job(&queue, 3, 5), job(&queue, 2, 9), job(&queue, 4, 5));
        let batch = || match queue.next(4) {
            Some(Work::Pictures(pictures)) => {
                let name = |job: &Arc<Job>| {
                    let named = [("a", &a), ("b", &b), ("c", &c)];
                    named
                        .into_iter()
                        .find(|(_, one)| Arc::ptr_eq(one, job))
                        .map(|(n, _)| n)
                };
                let place = |(job, place): &(Arc<Job>, usize)| (name(job).expect("a job"), *place);
                pictures.iter().map(place).collect::<Vec<_>>()
            }
            _ => panic!("no pictures"),
        };
        // c is like a and fills its batch; what is left of it comes after b.
        assert_eq!(batch(), [("a", 0), ("a", 1), ("a", 2), ("c", 0)]);
        assert_eq!(batch(), [("b", 0), ("b", 1)]);
        assert_eq!(batch(), [("c", 1), ("c", 2), ("c", 3)]);
        queue.close();
        assert!(queue.next(4).is_none());
        assert!(queue.place().is_err());
    }

    #[test]
    fn a_place_is_free_when_its_job_ends() {
        let queue = Queue::default();
        let jobs: Vec<_> = (0..MOST_JOBS).map(|_| job(&queue, 1, 5)).collect();
        let full = queue.place().err().expect("a full queue");
        assert!(full.retry_after.is_some());
        jobs[7].cancel();
        assert!(queue.place().is_ok());
        assert_eq!(queue.give_up(), MOST_JOBS - 1);
        assert!(jobs.iter().all(|job| job.has_ended()));
    }
}
