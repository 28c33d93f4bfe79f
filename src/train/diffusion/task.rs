//! Training of the diffusion model as a task of the engine: batches of tokens to gradients.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tch::{Device, Kind, Tensor};

use super::config::TrainConfig;
use super::line::{LogLine, Speed, StepReport, Sums};
use super::model::{ConditionParts, TrainingModel};
use super::preview::preview;
use super::step::{accumulate, BatchOutcome, Shown};
use super::validation::bound;
use super::MODEL;
use crate::checkpoint::{native, Entry, StateDict, WriteError};
use crate::data::{Batch, Fingerprint, TokenLoader};
use crate::diffusion::forward::q_sample;
use crate::diffusion::timesteps::TimestepSampler;
use crate::diffusion::{Objective, Schedule};
use crate::model::ModelConfig;
use crate::picture::Picture;
use crate::random::{training_uniform, TrainingDraw};
use crate::ranks::Ranks;
use crate::torch::device::Precision;
use crate::torch::host::values;
use crate::torch::Params;
use crate::train::engine::checkpoint::numbers;
use crate::train::engine::{Better, Measure, RunState, Task};
use crate::train::TrainError;
use crate::transformer::Dropout;

/// The frozen parts of a model in training.
pub struct Frozen {
    /// Those that the condition is computed with.
    pub parts: ConditionParts,
    /// All tensors that model files hold besides the trained ones.
    pub tensors: StateDict,
    /// Notice of the model that the run started from.
    pub notice: Option<String>,
}

/// The data of a run.
pub struct RunData {
    pub train: TokenLoader,
    /// What the bound is measured on, where the run has validations.
    pub validation: Option<Batch>,
}

/// Training of the denoiser, and of the text tower with it where that is asked for.
pub struct DiffusionTask {
    config: TrainConfig,
    model: ModelConfig,
    frozen: Frozen,
    fingerprint: Fingerprint,
    data: RunData,
    speed: Speed,
    device: Device,
    schedule: Schedule,
    objective: Objective,
    times: TimestepSampler,
    /// First sample, times and their probabilities of the step at hand.
    drawn: (u64, Vec<i64>, Vec<f64>),
    /// The model over the weights, where it is the same in every step.
    single: Option<TrainingModel>,
    /// The model of the step at hand.
    current: Option<TrainingModel>,
    /// A batch that was made ahead, with its first sample.
    ahead: Option<(u64, Batch)>,
}

/// What the backward pass of a batch leaves.
pub struct Part {
    outcome: BatchOutcome,
    /// How often each of the K codes occurs in it, `[K]`.
    usage: Tensor,
}

impl DiffusionTask {
    pub fn new(
        config: &TrainConfig,
        model: &ModelConfig,
        frozen: Frozen,
        data: RunData,
        speed: Speed,
        device: Device,
    ) -> Self {
        let schedule = model.schedule();
        DiffusionTask {
            objective: Objective::new(&config.objective, &schedule, device),
            times: TimestepSampler::new(schedule.timesteps(), config.duplicates()),
            schedule,
            config: config.clone(),
            model: model.clone(),
            frozen,
            fingerprint: data.train.fingerprint(),
            data,
            speed,
            device,
            drawn: (0, Vec::new(), Vec::new()),
            single: None,
            current: None,
            ahead: None,
        }
    }

    /// The batch of these samples.
    fn batch(&mut self, samples: &Range<u64>) -> Result<Batch, TrainError> {
        let first = samples.start;
        match self.ahead.take() {
            Some((at, batch)) if at == first => Ok(batch),
            _ => Ok(self.data.train.batch(first, count(samples))?),
        }
    }

    /// Corrupts a batch at the times `t`, with noise keyed by its samples.
    fn show(
        &self,
        model: &TrainingModel,
        batch: &Batch,
        t: &[i64],
        p_t: &[f64],
    ) -> Result<Shown, TrainError> {
        let (seed, tokens) = (self.config.seed, self.model.denoiser.tokens());
        let uniform = training_uniform(seed, &batch.samples, TrainingDraw::Corruption, tokens);
        let x_0 = batch.tokens.to_device(self.device);
        let x_t = q_sample(&self.schedule, &x_0, t, &uniform.to_device(self.device));
        let y = model.condition(batch)?;
        Ok(Shown {
            x_0,
            x_t,
            t: Tensor::from_slice(t).to_device(self.device),
            p_t: Tensor::from_slice(p_t)
                .to_kind(Kind::Float)
                .to_device(self.device),
            y,
            dropout: None,
        })
    }

    /// What is dropped of a batch in training, if anything is.
    fn dropout(&self, batch: &Batch) -> Option<Dropout> {
        let rates = self.config.dropout;
        let layers = self.model.denoiser.layers as usize;
        (!rates.is_none()).then(|| Dropout::new(rates, self.config.seed, &batch.samples, layers))
    }

    /// The model over the weights of this step: in f32 always the same, which holds the
    /// weights themselves, else a new one of casts.
    fn model_of(&mut self, state: &RunState) -> TrainingModel {
        self.single.take().unwrap_or_else(|| {
            let kind = self.config.precision.kind();
            let params = Params::new(&state.parameters, self.device, kind);
            TrainingModel::new(&params, &self.frozen.parts, &self.model)
        })
    }
}

impl Task for DiffusionTask {
    type Part = Part;
    type Report = StepReport;
    type Sums = Sums;
    type Line = LogLine;

    const MODEL: &'static str = MODEL;
    const MEASURE: Measure = Measure {
        name: "nats_per_token",
        log: "validation_nats_per_token",
        tag: "validation/nats_per_token",
        better: Better::Lower,
    };

    fn data(&self) -> &Fingerprint {
        &self.fingerprint
    }

    /// Draws the times of the whole step, which follow the history as it was before it.
    fn begin(
        &mut self,
        state: &RunState,
        samples: Range<u64>,
        _ranks: &Ranks,
        _stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TrainError> {
        let first = samples.start;
        let samples: Vec<u64> = samples.collect();
        let u = training_uniform(self.config.seed, &samples, TrainingDraw::Time, 1);
        let (times, p_t) = self.times.draw(&values::<f64>(&u));
        self.drawn = (first, times, p_t);
        self.current = Some(self.model_of(state));
        Ok(ControlFlow::Continue(()))
    }

    fn backward(
        &mut self,
        state: &RunState,
        samples: Range<u64>,
        parts: usize,
    ) -> Result<Part, TrainError> {
        let model = match self.current.take() {
            Some(model) => model,
            None => self.model_of(state),
        };
        let batch = self.batch(&samples)?;
        let codes = self.model.denoiser.codes;
        let usage = batch.tokens.flatten(0, -1).bincount(None::<Tensor>, codes);
        let (first, times, p_t) = &self.drawn;
        let part = (samples.start - first) as usize..(samples.end - first) as usize;
        let shown = Shown {
            dropout: self.dropout(&batch),
            ..self.show(&model, &batch, &times[part.clone()], &p_t[part])?
        };
        let outcome = accumulate(
            &model,
            &self.objective,
            &shown,
            parts,
            self.config.activation_checkpointing,
        );
        self.current = Some(model);
        Ok(Part { outcome, usage })
    }

    fn look_ahead(&mut self, samples: Range<u64>) {
        let batch = self.data.train.batch(samples.start, count(&samples));
        self.ahead = batch.ok().map(|batch| (samples.start, batch));
    }

    fn report(&mut self, parts: Vec<Part>, ranks: &Ranks) -> Result<StepReport, TrainError> {
        let model = self.current.take();
        if self.config.precision == Precision::F32 {
            self.single = model;
        }
        let all = |of: fn(&Part) -> &Tensor| parts.iter().map(of).collect::<Vec<&Tensor>>();
        // Of each process the loss and the accuracy of its parts, and the main terms of its
        // samples: one row.
        let rows = [
            Tensor::stack(&all(|part| &part.outcome.loss), 0),
            Tensor::stack(&all(|part| &part.outcome.accuracy), 0),
            Tensor::cat(&all(|part| &part.outcome.main), 0),
        ];
        let row = Tensor::cat(&rows, 0).to_kind(Kind::Double);
        let gathered: Vec<f64> = values(&ranks.gathered(&row)?);
        let (mut loss, mut accuracy, mut main) = (0.0, 0.0, Vec::new());
        for row in gathered.chunks(row.numel()) {
            let (losses, rest) = row.split_at(parts.len());
            let (accuracies, of_samples) = rest.split_at(parts.len());
            loss += losses.iter().sum::<f64>();
            accuracy += accuracies.iter().sum::<f64>();
            main.extend_from_slice(of_samples);
        }
        let usage = Tensor::stack(&all(|part| &part.usage), 0);
        let usage = ranks.summed(&usage.sum_dim_intlist(0, false, Kind::Int64))?;
        Ok(StepReport {
            loss: loss / ranks.count() as f64,
            times: self.drawn.1.clone(),
            main,
            accuracy: accuracy / (ranks.count() * parts.len()) as f64,
            usage: values::<i64>(&usage)
                .into_iter()
                .map(|n| n as u64)
                .collect(),
        })
    }

    fn loss(report: &StepReport) -> f64 {
        report.loss
    }

    fn describe(&self, report: &StepReport) -> String {
        format!(" at the times {:?}", report.times)
    }

    /// The history of losses by time.
    fn learn(
        &mut self,
        _state: &RunState,
        report: &mut StepReport,
        _ranks: &Ranks,
    ) -> Result<(), TrainError> {
        self.times.update(&report.times, &report.main);
        Ok(())
    }

    fn add(&self, sums: &mut Sums, report: &StepReport, norm: f64) {
        let tokens = self.model.denoiser.tokens();
        sums.add(report, norm, tokens, self.schedule.timesteps());
    }

    fn line(&self, sums: &Sums, state: &RunState, rate: f64, images_per_second: f64) -> LogLine {
        sums.line(state, rate, images_per_second, &self.speed)
    }

    /// The bound of the averaged weights on the validation samples.
    fn validate(
        &self,
        state: &RunState,
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<f64>, TrainError> {
        let (Some(samples), Some(ema)) = (&self.data.validation, &state.ema) else {
            return Ok(None);
        };
        let params = Params::new(ema, self.device, self.config.precision.kind());
        let model = TrainingModel::new(&params, &self.frozen.parts, &self.model);
        let (times, size) = (self.config.validation.times, self.config.batch_size);
        let timesteps = self.schedule.timesteps();
        bound(samples, times, size, timesteps, ranks, stop, |batch, t| {
            let p_t = vec![1.0 / timesteps as f64; t.len()];
            let shown = self.show(&model, batch, t, &p_t)?;
            let logits = model.logits(&shown.x_t, &shown.t, &shown.y, None);
            let Shown {
                x_0, x_t, t, p_t, ..
            } = &shown;
            Ok(self.objective.terms(&logits, x_0, x_t, t, p_t))
        })
    }

    fn preview(
        &self,
        saved: &Path,
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<Option<Picture>, TrainError> {
        preview(saved, &self.config.preview, self.device, ranks, stop)
    }

    /// The averaged weights with the frozen parts, a model file like any other.
    fn write_model(&self, path: &Path, state: &RunState) -> Result<(), WriteError> {
        let mut model = self.frozen.tensors.clone();
        let weights = state.ema.as_ref().unwrap_or(&state.parameters);
        for (name, tensor) in &weights.tensors {
            let tensor = tensor.detach().to_device(Device::Cpu);
            model.insert(name.clone(), Entry::in_memory(name, &tensor)?);
        }
        let notice = self.frozen.notice.as_deref();
        native::write(path, &self.model, &model, notice)
    }

    fn tensors(&self) -> Vec<(String, Tensor)> {
        [
            ("time.history", &self.times.history),
            ("time.count", &self.times.count),
        ]
        .map(|(name, values)| (name.to_string(), Tensor::from_slice(values)))
        .into()
    }

    fn restore(&mut self, _model: &StateDict, rest: &StateDict) -> Result<(), TrainError> {
        let steps = self.times.history.len() as i64;
        self.times.history = numbers(rest, "time.history", steps)?;
        self.times.count = numbers(rest, "time.count", steps)?;
        Ok(())
    }
}

/// How many samples these are.
fn count(samples: &Range<u64>) -> usize {
    (samples.end - samples.start) as usize
}
