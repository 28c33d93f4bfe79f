//! One process's training: batches to steps.

use tch::{Device, Kind, Tensor};

use super::config::TrainConfig;
use super::error::TrainError;
use super::model::{ConditionParts, TrainingModel};
use super::state::{accumulate, BatchOutcome, RunState, Shown};
use super::validation::{bound, Bound};
use crate::data::{Batch, TokenLoader};
use crate::diffusion::forward::q_sample;
use crate::diffusion::noise::{training_uniform, TrainingDraw};
use crate::diffusion::{Objective, Schedule};
use crate::model::ModelConfig;
use crate::torch::device::Precision;
use crate::torch::Params;

/// What happened in a step.
#[derive(Clone, Debug)]
pub struct StepReport {
    /// Nats per token, weighted as they are minimised.
    pub loss: f64,
    /// L2 norm of the gradient before clipping.
    pub gradient_norm: f64,
    /// Learning rate of the step.
    pub rate: f64,
    /// Times of the samples.
    pub times: Vec<i64>,
    /// Main term of each sample, nats per token.
    pub main: Vec<f64>,
    /// Share of tokens whose likeliest code is the right one.
    pub accuracy: f64,
    /// How often each of the K codes occurs in the samples.
    pub usage: Vec<u64>,
    /// Whether the step was skipped because a number was not finite.
    pub skipped: bool,
}

/// A run in progress.
pub struct Trainer<'a> {
    config: &'a TrainConfig,
    model_config: &'a ModelConfig,
    parts: ConditionParts,
    schedule: Schedule,
    objective: Objective,
    device: Device,
    pub state: RunState,
    /// Steps in a row that were skipped.
    skipped_in_a_row: u64,
    /// Whether a step of this process has shown that every parameter gets a gradient.
    gradients_checked: bool,
    /// The model, where it is the same in every step.
    single: Option<TrainingModel>,
    /// The next step's first batch with its first sample, where it was made already.
    ahead: Option<(u64, Batch)>,
}

impl<'a> Trainer<'a> {
    pub fn new(
        config: &'a TrainConfig,
        model_config: &'a ModelConfig,
        parts: ConditionParts,
        state: RunState,
        device: Device,
    ) -> Self {
        let schedule = model_config.schedule();
        Trainer {
            config,
            model_config,
            parts,
            objective: Objective::new(&config.objective, &schedule, device),
            schedule,
            device,
            state,
            skipped_in_a_row: 0,
            gradients_checked: false,
            single: None,
            ahead: None,
        }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// One optimizer step on the next samples.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, a parameter without a gradient in the first step, and
    /// too many steps in a row whose numbers are not finite.
    pub fn step(&mut self, loader: &TokenLoader) -> Result<StepReport, TrainError> {
        let config = self.config;
        let first = self.state.samples;
        let count = config.effective_batch();
        let samples: Vec<u64> = (first..first + count).collect();
        let rate = self.state.learning_rate.rate;

        // The times of the whole step follow the history as it was before it.
        let u = training_uniform(config.seed, &samples, TrainingDraw::Time, 1);
        let (times, p_t) = self.state.times.draw(&values(&u));

        let model = self.model();
        self.state.parameters.clear_gradients();
        let mut outcomes = Vec::with_capacity(config.accumulation);
        let codes = self.model_config.denoiser.codes;
        let mut usage = Tensor::zeros([codes], (Kind::Int64, Device::Cpu));
        for start in (0..samples.len()).step_by(config.batch_size) {
            let part = start..start + config.batch_size;
            let batch = self.batch(loader, first + start as u64)?;
            let used = batch.tokens.flatten(0, -1).bincount(None::<Tensor>, codes);
            usage += used.to_device(Device::Cpu);
            let shown = self.show(&model, &batch, &times[part.clone()], &p_t[part])?;
            outcomes.push(accumulate(
                &model,
                &self.objective,
                &shown,
                config.accumulation,
                config.activation_checkpointing,
            ));
        }
        if self.state.step + 1 < config.steps {
            // While a GPU computes. A problem shows again when the step comes to it.
            let next = first + count;
            let batch = loader.batch(next, config.batch_size);
            self.ahead = batch.ok().map(|batch| (next, batch));
        }
        if config.precision == Precision::F32 {
            self.single = Some(model);
        }
        if !self.gradients_checked {
            self.check_gradients()?;
        }

        // With several processes, gradients and the three statistics are averaged or
        // gathered here; all below is the same everywhere.
        let gradient_norm = self.state.gradient_norm();
        let (loss, main, accuracy) = gathered(&outcomes);

        self.state.samples += count;
        let finite = loss.is_finite() && gradient_norm.is_finite();
        if finite {
            self.state.times.update(&times, &main);
            self.state.update(config, loss, gradient_norm);
            self.skipped_in_a_row = 0;
        } else {
            self.skip(&times)?;
        }
        let tokens = self.model_config.denoiser.tokens() as f64;
        Ok(StepReport {
            loss,
            gradient_norm,
            rate,
            times,
            main: main.iter().map(|m| m / tokens).collect(),
            accuracy,
            usage: values(&usage).into_iter().map(|n| n as u64).collect(),
            skipped: !finite,
        })
    }

    /// The bound of the averaged weights on the validation samples.
    pub fn validate(&self, samples: &Batch) -> Result<Bound, TrainError> {
        let params = Params::new(&self.state.ema, self.device, self.config.precision.kind());
        let model = TrainingModel::new(&params, &self.parts, self.model_config);
        let times = self.config.validation.times;
        let size = self.config.batch_size;
        bound(
            samples,
            times,
            size,
            self.schedule.timesteps(),
            |batch, t| {
                let p_t = vec![1.0 / self.schedule.timesteps() as f64; t.len()];
                let shown = self.show(&model, batch, t, &p_t)?;
                let logits = model.logits(&shown.x_t, &shown.t, &shown.y);
                let Shown {
                    x_0, x_t, t, p_t, ..
                } = &shown;
                Ok(self.objective.terms(&logits, x_0, x_t, t, p_t))
            },
        )
    }

    /// The batch that begins with this sample.
    fn batch(&mut self, loader: &TokenLoader, first: u64) -> Result<Batch, TrainError> {
        match self.ahead.take() {
            Some((at, batch)) if at == first => Ok(batch),
            _ => Ok(loader.batch(first, self.config.batch_size)?),
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
        let (seed, tokens) = (self.config.seed, self.model_config.denoiser.tokens());
        let uniform = training_uniform(seed, &batch.samples, TrainingDraw::Corruption, tokens);
        let x_0 = batch.tokens.to_device(self.device);
        let x_t = q_sample(&self.schedule, &x_0, t, &uniform.to_device(self.device));
        let y = model.condition(batch).map_err(TrainError::Mismatch)?;
        Ok(Shown {
            x_0,
            x_t,
            t: Tensor::from_slice(t).to_device(self.device),
            p_t: Tensor::from_slice(p_t)
                .to_kind(Kind::Float)
                .to_device(self.device),
            y,
        })
    }

    /// The model over the weights of this step: in f32 always the same, which holds the
    /// weights themselves, else a new one of casts.
    fn model(&mut self) -> TrainingModel {
        self.single.take().unwrap_or_else(|| {
            let kind = self.config.precision.kind();
            let params = Params::new(&self.state.parameters, self.device, kind);
            TrainingModel::new(&params, &self.parts, self.model_config)
        })
    }

    fn check_gradients(&mut self) -> Result<(), TrainError> {
        let mut parameters = self.state.parameters.tensors.iter();
        if let Some((name, _)) = parameters.find(|(_, p)| !p.grad().defined()) {
            return Err(TrainError::NoGradient { name: name.clone() });
        }
        self.gradients_checked = true;
        Ok(())
    }

    fn skip(&mut self, times: &[i64]) -> Result<(), TrainError> {
        self.state.step += 1;
        self.state.skipped += 1;
        self.skipped_in_a_row += 1;
        let last = self.state.samples - 1;
        let first = self.state.samples - self.config.effective_batch();
        log::warn!(
            "step {}: the loss or its gradient is not finite; skipped (samples {first} to {last}, times {times:?})",
            self.state.step
        );
        if self.skipped_in_a_row < self.config.skip_limit {
            return Ok(());
        }
        Err(TrainError::NotFinite {
            count: self.skipped_in_a_row,
            step: self.state.step,
            first,
            last,
            times: times.to_vec(),
            good: self.state.step - self.skipped_in_a_row,
        })
    }
}

/// Loss, main terms and accuracy of a step's batches, on the host.
fn gathered(outcomes: &[BatchOutcome]) -> (f64, Vec<f64>, f64) {
    let loss: Vec<&Tensor> = outcomes.iter().map(|o| &o.loss).collect();
    let main: Vec<&Tensor> = outcomes.iter().map(|o| &o.main).collect();
    let accuracy: Vec<&Tensor> = outcomes.iter().map(|o| &o.accuracy).collect();
    (
        values(&Tensor::stack(&loss, 0)).iter().sum(),
        values(&Tensor::cat(&main, 0)),
        values(&Tensor::stack(&accuracy, 0)).iter().sum::<f64>() / outcomes.len() as f64,
    )
}

/// The values of a tensor in f64.
fn values(x: &Tensor) -> Vec<f64> {
    let flat = x
        .to_device(Device::Cpu)
        .to_kind(Kind::Double)
        .contiguous()
        .flatten(0, -1);
    let mut values = vec![0.0; flat.numel()];
    flat.copy_data(&mut values, flat.numel());
    values
}
