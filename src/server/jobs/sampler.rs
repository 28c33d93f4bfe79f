//! The one thread that owns the model.

use std::ops::ControlFlow;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::Arc;
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::events::{Event, Preview, Step};
use super::job::{Alike, Job};
use super::made::{Change, Made};
use super::queue::{Queue, Work};
use crate::pipeline::{MadePicture, Maker, Pipeline, Request, SamplingStep};
use crate::server::error::ApiError;
use crate::torch::fault::Fault;
use crate::torch::host::values;

/// Why the thread ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SamplerEnd {
    /// The queue was closed.
    Closed,
    /// The device does not answer any more.
    DeviceLost,
}

/// What is told of the work.
pub trait Heard {
    /// A picture was made, in so many seconds.
    fn made(&self, made: &Arc<Made>, seconds: f64);
    /// A step was made.
    fn step(&self);
    /// Work panicked.
    fn fault(&self);
}

/// Serves the queue with the model.
pub struct Sampler<'a, H> {
    pub pipeline: &'a Pipeline,
    pub queue: &'a Queue,
    /// Pictures made together.
    pub batch: usize,
    /// What the model is called.
    pub name: &'a str,
    pub heard: &'a H,
}

/// Pictures of jobs, each by its place in the job.
type Batch = [(Arc<Job>, usize)];

impl<'a, H: Heard> Sampler<'a, H> {
    /// Works until the queue is closed and empty. What panics ends its own jobs alone.
    pub fn run(&self) -> SamplerEnd {
        // Equal options one after the other, from one picture, are prepared once.
        let mut prepared: Option<(Alike, Maker)> = None;
        while let Some(work) = self.queue.next(self.batch) {
            let done = catch_unwind(AssertUnwindSafe(|| match &work {
                Work::Pictures(batch) => self.pictures(batch, &mut prepared),
                Work::Task(_) => (),
            }));
            let done = match work {
                Work::Task(task) => catch_unwind(AssertUnwindSafe(|| task(self.pipeline))),
                Work::Pictures(batch) => done.inspect_err(|panic| {
                    let error = ApiError::fault(&Fault::of(panic.as_ref()));
                    for (job, _) in &batch {
                        job.push(Event::Error(error.clone()));
                    }
                }),
            };
            let Err(panic) = done else { continue };
            prepared = None;
            self.heard.fault();
            match Fault::of(panic.as_ref()) {
                Fault::Memory(asked) => log::warn!("a job was ended, not enough memory: {asked}"),
                Fault::Torch(text) => log::error!("a job was ended: libtorch: {text}"),
                Fault::Program(text) => log::error!("a job was ended by a fault: {text}"),
            }
            if !answers(self.pipeline.device()) {
                return SamplerEnd::DeviceLost;
            }
        }
        SamplerEnd::Closed
    }

    fn pictures(&self, batch: &Batch, prepared: &mut Option<(Alike, Maker<'a>)>) {
        let Some((first, _)) = batch.first() else {
            return;
        };
        if batch.iter().all(|(job, _)| job.is_cancelled()) {
            return;
        }
        let fail = |error: crate::pipeline::Error| {
            for (job, _) in batch {
                // What a request can have wrong was looked at before.
                job.push(Event::Error(ApiError::bad_request(error.to_string())));
            }
        };
        let mut maker = match prepared.take() {
            Some((alike, maker)) if alike == first.alike => maker,
            _ => match self.pipeline.maker(&first.order.options) {
                Ok(maker) => maker,
                Err(error) => return fail(error),
            },
        };
        let started = Instant::now();
        let requests: Vec<Request> = batch
            .iter()
            .map(|(job, place)| job.order.requests[*place].clone())
            .collect();
        let mut course = Course::new(&maker, &requests, batch);
        let made = maker.make(&requests, &mut |step| {
            self.heard.step();
            course.step(&step, batch);
            match batch.iter().all(|(job, _)| job.is_cancelled()) {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        });
        match made {
            Err(error) => return fail(error.into()),
            Ok(None) => {} // given up by all
            Ok(Some(made)) => {
                let seconds = started.elapsed().as_secs_f64() / made.len().max(1) as f64;
                self.queue.took(seconds);
                let ways = course.changes.into_iter();
                for (((job, place), made), way) in batch.iter().zip(made).zip(ways) {
                    self.finish(job, *place, made, way, seconds);
                }
            }
        }
        *prepared = Some((first.alike.clone(), maker));
    }

    fn finish(
        &self,
        job: &Arc<Job>,
        place: usize,
        picture: MadePicture,
        changes: Vec<Change>,
        seconds: f64,
    ) {
        if job.is_cancelled() {
            return;
        }
        let subject = &picture.record.request.subject;
        let words = self
            .pipeline
            .conditioner()
            .words(subject)
            .unwrap_or_default();
        let prompt_tokens = words.last().map_or(0, |(_, range)| range.end);
        let options = job.order.options.clone();
        let made = Made::new(picture, options, changes, prompt_tokens, self.name);
        let made = Arc::new(made);
        self.heard.made(&made, seconds);
        job.push(Event::Picture { index: place, made });
        if job.pictures().len() == job.order.requests.len() {
            job.push(Event::Done);
        }
    }
}

/// Whether `device` still computes.
fn answers(device: Device) -> bool {
    let asked = || Tensor::ones([1], (Kind::Float, device)).double_value(&[0]) == 1.0;
    device == Device::Cpu || catch_unwind(asked).unwrap_or(false)
}

/// The tokens of a batch on their way.
struct Course {
    now: Vec<Vec<i64>>,
    /// Of each picture from all masks to its start, then by step.
    changes: Vec<Vec<Change>>,
    /// Previews of each picture so far.
    previews: Vec<usize>,
}

impl Course {
    fn new(maker: &Maker, requests: &[Request], batch: &Batch) -> Self {
        let pipeline = maker.pipeline();
        let seeds: Vec<u64> = requests.iter().map(|request| request.seed).collect();
        let start = pipeline.start(maker.plan(), &seeds, maker.edits()).tokens; // [B, L]
        let denoiser = &pipeline.config().denoiser;
        let length = denoiser.tokens() as usize;
        let mut course = Course {
            now: vec![vec![denoiser.mask_token(); length]; requests.len()],
            changes: vec![Vec::new(); requests.len()],
            previews: vec![0; requests.len()],
        };
        let steps = maker.plan().steps().len();
        course.reach(&values(&start), None, 0, steps, batch);
        course
    }

    fn step(&mut self, step: &SamplingStep, batch: &Batch) {
        let progress = step.progress;
        let wanted = batch
            .iter()
            .any(|(job, _)| job.order.steps && job.order.entropy);
        let entropy: Option<Vec<f32>> = wanted.then(|| values(&progress.entropy()));
        let tokens: Vec<i64> = values(progress.tokens); // [B, L]
        let (done, steps) = (progress.done, progress.steps);
        self.reach(&tokens, entropy.as_deref(), done, steps, batch);
        for (i, (job, place)) in batch.iter().enumerate() {
            let wanted = job.order.previews;
            let index = self.previews[i];
            // The next of `wanted` even parts of the way, the end being the picture.
            let due = (index + 1) * steps / (wanted + 1);
            if index < wanted && done >= due.max(1) && done < steps {
                self.previews[i] += 1;
                job.push(Event::Preview(Preview {
                    picture: *place,
                    index,
                    done,
                    steps,
                    image: Arc::new(step.unfinished(i)),
                }));
            }
        }
    }

    fn reach(
        &mut self,
        tokens: &[i64],
        entropy: Option<&[f32]>,
        done: usize,
        steps: usize,
        batch: &Batch,
    ) {
        let length = tokens.len() / batch.len().max(1);
        for (i, (job, place)) in batch.iter().enumerate() {
            let row = &tokens[i * length..(i + 1) * length];
            let before = &mut self.now[i];
            let changed: Vec<usize> = (0..length).filter(|&at| before[at] != row[at]).collect();
            let codes: Vec<i64> = changed.iter().map(|&at| row[at]).collect();
            before.copy_from_slice(row);
            if job.order.steps {
                let of = |&at: &usize| entropy.map(|e| e[i * length + at]);
                let drawn = changed.iter().map(|at| of(at).filter(|e| e.is_finite()));
                job.push(Event::Step(Step {
                    picture: *place,
                    done,
                    steps,
                    changed: changed.clone(),
                    codes: codes.clone(),
                    entropy: (job.order.entropy && done > 0).then(|| drawn.collect()),
                }));
            }
            self.changes[i].push(Change {
                positions: changed,
                codes,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::StatusCode;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[derive(Default)]
    struct Faults(AtomicUsize);

    impl Heard for Faults {
        fn made(&self, _: &Arc<Made>, _: f64) {}
        fn step(&self) {}
        fn fault(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_panic_is_a_500_for_its_own_work_alone() {
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/checkpoints/emoji.safetensors");
        let (queue, heard) = (Queue::default(), Faults::default());
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let cpu = "cpu".parse().expect("a device");
                let pipeline = Pipeline::builder().device(cpu).threads(1).open(model);
                let sampler = Sampler {
                    pipeline: &pipeline.expect("a model"),
                    queue: &queue,
                    batch: 1,
                    name: "emoji",
                    heard: &heard,
                };
                sampler.run()
            });
            let runtime = tokio::runtime::Builder::new_current_thread().build();
            let (bad, good) = runtime.expect("a runtime").block_on(async {
                let place = || queue.place().expect("a place");
                let bad = queue.ask(place(), |_| -> i32 { panic!("a fault") });
                // An operator of libtorch that fails.
                let torch = queue.ask(place(), |_| {
                    let wrong = Tensor::zeros([2], (Kind::Float, Device::Cpu)).view([3]);
                    wrong.size()
                });
                let good = queue.ask(place(), |pipeline| pipeline.config().denoiser.codes);
                let (bad, torch) = (bad.await.err(), torch.await.err());
                assert!(torch.is_some());
                (bad, good.await)
            });
            assert_eq!(
                bad.map(|e| e.status),
                Some(StatusCode::INTERNAL_SERVER_ERROR)
            );
            assert_eq!(good.ok(), Some(256));
            queue.close();
            assert_eq!(thread.join().expect("no panic"), SamplerEnd::Closed);
        });
        assert_eq!(heard.0.load(Ordering::Relaxed), 2);
    }
}
