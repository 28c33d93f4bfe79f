//! One optimizer step, and what becomes of one whose numbers are not finite.

use std::ops::{ControlFlow, Range};
use std::sync::atomic::AtomicBool;

use tch::Tensor;

use super::super::settings::GradientFormat;
use super::super::share::Share;
use super::super::state::RunState;
use super::super::task::Task;
use super::{Run, Step};
use crate::train::TrainError;

impl<T: Task> Run<T> {
    /// One optimizer step on the next samples; none when it was asked to stop before.
    ///
    /// # Errors
    ///
    /// Data that cannot be read, a parameter without a gradient in the first step, and
    /// too many steps in a row whose numbers are not finite.
    pub fn step(&mut self, stop: &AtomicBool) -> Result<Option<Step<T::Report>>, TrainError> {
        let samples = self.samples();
        let own = self.ranks.own(&samples);
        let Share {
            batch_size,
            accumulation: parts,
        } = self.share;
        let size = batch_size as u64;
        if !self.ranks.averages_gradients() {
            let part = own.start..own.start + size;
            if self.begin_together(samples.clone(), part, stop)?.is_break() {
                return Ok(None);
            }
        }
        if self.begin_task(samples.clone(), stop)?.is_break() {
            return Ok(None);
        }
        let rate = self.state.learning_rate.rate;
        self.state.parameters.clear_gradients();
        let mut done = Vec::with_capacity(parts);
        for (n, first) in own.step_by(batch_size).enumerate() {
            self.ranks.before_part(n + 1 == parts)?;
            let part = self
                .task
                .backward(&self.state, first..first + size, parts)?;
            done.push(part);
        }
        self.ranks.after_step()?;
        if self.state.step + 1 < self.settings.steps {
            let next = samples.end..samples.end + self.settings.effective_batch();
            let first = self.ranks.own(&next).start;
            self.task.look_ahead(first..first + size);
        }
        if !self.gradients_checked {
            self.check_gradients()?;
        }

        // Gradients are averaged and reports gathered: all below is the same everywhere.
        let norm = self.state.gradient_norm();
        let mut report = self.task.report(done, &self.ranks)?;
        let loss = T::loss(&report);

        self.state.samples = samples.end;
        let finite = loss.is_finite() && norm.is_finite();
        if finite {
            self.task.learn(&self.state, &mut report, &self.ranks)?;
            self.state.update(&self.settings.rules, loss, norm);
            self.skipped_in_a_row = 0;
        } else {
            self.skip(samples, &report)?;
        }
        Ok(Some(Step {
            report,
            loss,
            norm,
            rate,
            skipped: !finite,
        }))
    }

    fn begin_task(
        &mut self,
        samples: Range<u64>,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TrainError> {
        self.task.begin(&self.state, samples, &self.ranks, stop)
    }

    /// The processes begin to average their gradients. The Reducer orders its buckets after
    /// the first backward pass, and the sums of three processes depend on them; so every
    /// process begins with a pass that counts for nothing, and a run that goes on has the
    /// buckets of one that nothing interrupts.
    fn begin_together(
        &mut self,
        samples: Range<u64>,
        part: Range<u64>,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TrainError> {
        if self.begin_task(samples, stop)?.is_break() {
            return Ok(ControlFlow::Break(()));
        }
        // Alone at first: the Reducer would wait for a gradient that never comes.
        self.task.backward(&self.state, part.clone(), 1)?;
        self.check_gradients()?;
        self.state.parameters.clear_gradients();
        let RunState {
            parameters, ema, ..
        } = &self.state;
        let weights: Vec<&Tensor> = parameters.tensors.values().collect();
        let bf16 = self.settings.gradients == GradientFormat::Bf16;
        self.ranks.average_gradients(&weights, bf16)?;
        if let Some(ema) = ema {
            let averages: Vec<&Tensor> = ema.tensors.values().collect();
            self.ranks.share_of_first(&averages)?;
        }
        self.ranks.before_part(true)?;
        self.task.backward(&self.state, part, 1)?;
        self.ranks.after_step()?;
        Ok(ControlFlow::Continue(()))
    }

    /// The samples of the next step.
    fn samples(&self) -> Range<u64> {
        let first = self.state.samples;
        first..first + self.settings.effective_batch()
    }

    fn check_gradients(&mut self) -> Result<(), TrainError> {
        let mut parameters = self.state.parameters.tensors.iter();
        if let Some((name, _)) = parameters.find(|(_, p)| !p.grad().defined()) {
            return Err(TrainError::NoGradient { name: name.clone() });
        }
        self.gradients_checked = true;
        Ok(())
    }

    fn skip(&mut self, samples: Range<u64>, report: &T::Report) -> Result<(), TrainError> {
        self.state.step += 1;
        self.state.skipped += 1;
        self.skipped_in_a_row += 1;
        let (first, last) = (samples.start, samples.end - 1);
        let more = self.task.describe(report);
        if self.ranks.is_first() {
            log::warn!(
                "step {}: the loss or its gradient is not finite; skipped (samples {first} to {last}{more})",
                self.state.step
            );
        }
        if self.skipped_in_a_row < self.settings.skip_limit {
            return Ok(());
        }
        Err(TrainError::NotFinite {
            count: self.skipped_in_a_row,
            step: self.state.step,
            first,
            last,
            more,
            good: self.state.step - self.skipped_in_a_row,
        })
    }
}
