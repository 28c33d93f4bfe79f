//! The operations in which all processes meet.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Tensor};

use super::{Ranks, RanksError};
use crate::torch::c10d::{C10dError, Reducer};
use crate::torch::host::values;

impl Ranks {
    /// The tensors of all processes, by rank along the first dimension, on the CPU; of one
    /// process its own.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn gathered(&self, tensor: &Tensor) -> Result<Tensor, RanksError> {
        let tensor = tensor.to_device(Device::Cpu);
        match &self.joined {
            None => Ok(tensor),
            Some(joined) => {
                let all = joined.together(|group| group.all_gather(&tensor))?;
                Ok(Tensor::cat(&all, 0))
            }
        }
    }

    /// The sum of the tensors of all processes, on the CPU.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn summed(&self, tensor: &Tensor) -> Result<Tensor, RanksError> {
        let tensor = tensor.to_device(Device::Cpu);
        match &self.joined {
            None => Ok(tensor),
            Some(joined) => joined.together(|group| group.sum(&tensor)),
        }
    }

    /// Whether this is so in any process.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn any(&self, here: bool) -> Result<bool, RanksError> {
        if self.is_alone() {
            return Ok(here);
        }
        let flag = Tensor::from_slice(&[i64::from(here)]);
        Ok(values::<i64>(&self.summed(&flag)?)[0] > 0)
    }

    /// Whether any process is asked to stop, by `stop` or because the store is gone.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn any_stops(&self, stop: &AtomicBool) -> Result<bool, RanksError> {
        let watch = self
            .joined
            .as_ref()
            .and_then(|joined| joined.watch.as_ref());
        let lost = watch.is_some_and(|watch| watch.is_lost());
        self.any(lost || stop.load(Ordering::Relaxed))
    }

    /// Waits until all processes come here.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn wait_for_all(&self) -> Result<(), RanksError> {
        self.any(false).map(drop)
    }

    /// Checks that all processes have the same `weights` after `step`, by a checksum of each
    /// tensor's bits.
    ///
    /// # Errors
    ///
    /// One that has others, and a process that is gone.
    pub fn check_same<'a>(
        &self,
        weights: impl Iterator<Item = &'a Tensor>,
        step: u64,
    ) -> Result<(), RanksError> {
        if self.is_alone() {
            return Ok(());
        }
        let _no_grad = tch::no_grad_guard();
        let sums: Vec<Tensor> = weights.map(bits).collect();
        let own = Tensor::stack(&sums, 0).to_device(Device::Cpu);
        log::debug!(
            "rank {}: the weights of step {step} have the checksum {:016x}",
            self.rank,
            values::<i64>(&bits(&own))[0]
        );
        let all = self.gathered(&own.unsqueeze(0))?;
        let first = all.get(0);
        match (1..self.count).find(|&rank| all.get(rank as i64) != first) {
            Some(rank) => Err(RanksError::Diverged { rank, step }),
            None => Ok(()),
        }
    }

    /// The number that the first process has; the others wait for it.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn of_first(&self, value: f64) -> Result<f64, RanksError> {
        let Some(joined) = &self.joined else {
            return Ok(value);
        };
        let value = Tensor::from_slice(&[value]).to_kind(Kind::Double);
        joined.together(|group| group.broadcast(&[&value]))?;
        Ok(values(&value)[0])
    }

    /// The path that the first process finds; the others wait for it.
    ///
    /// # Errors
    ///
    /// What `find` says, and a process that is gone.
    pub fn path_of_first<E: From<RanksError>>(
        &self,
        find: impl FnOnce() -> Result<Option<PathBuf>, E>,
    ) -> Result<Option<PathBuf>, E> {
        use std::os::unix::ffi::OsStrExt;
        const NAME: &str = "resumed";
        let Some(joined) = &self.joined else {
            return find();
        };
        if self.is_first() {
            let found = find()?;
            let bytes = found
                .as_deref()
                .map_or(&[][..], |p| p.as_os_str().as_bytes());
            let set = joined.store.set(NAME, bytes);
            set.map_err(|error| joined.why(error))?;
            return Ok(found);
        }
        let got = joined.store.get(NAME);
        let bytes = got.map_err(|error| joined.why(error))?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&bytes));
        Ok((!bytes.is_empty()).then(|| path.to_path_buf()))
    }

    /// Gives `tensors` the values that they have in the first process.
    ///
    /// # Errors
    ///
    /// Tensors of other shapes there, and a process that is gone.
    pub fn share_of_first(&self, tensors: &[&Tensor]) -> Result<(), RanksError> {
        match &self.joined {
            None => Ok(()),
            Some(joined) => joined.together(|group| group.broadcast(tensors)),
        }
    }

    /// Gives `tensors`, leaves of the graph, the values of the first process, and begins to
    /// average their gradients, which are sent in bf16 if it is so. All of them must get one
    /// in every backward pass.
    ///
    /// # Errors
    ///
    /// Other tensors in another process, or one that is gone.
    pub fn average_gradients(&mut self, tensors: &[&Tensor], bf16: bool) -> Result<(), RanksError> {
        self.share_of_first(tensors)?;
        if let Some(joined) = &mut self.joined {
            let reducer = joined.together(|group| Reducer::new(group, tensors, bf16))?;
            joined.reducer = Some(reducer);
        }
        Ok(())
    }

    /// Whether gradients are averaged from now on, or need not be.
    pub fn averages_gradients(&self) -> bool {
        self.joined.as_ref().is_none_or(|j| j.reducer.is_some())
    }

    /// Called before the forward pass of a part of a step; the `last` part's backward pass
    /// ends with averaged gradients.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn before_part(&self, last: bool) -> Result<(), RanksError> {
        self.with_reducer(|reducer| reducer.prepare(last))
    }

    /// Called after the backward pass of the last part of a step.
    ///
    /// # Errors
    ///
    /// Gradients that did not come, and a process that is gone.
    pub fn after_step(&self) -> Result<(), RanksError> {
        self.with_reducer(Reducer::check)
    }

    fn with_reducer(
        &self,
        call: impl FnOnce(&Reducer) -> Result<(), C10dError>,
    ) -> Result<(), RanksError> {
        let Some(joined) = &self.joined else {
            return Ok(());
        };
        match &joined.reducer {
            Some(reducer) => call(reducer).map_err(|error| joined.why(error)),
            None => Ok(()),
        }
    }
}

/// A sum over the bits of a tensor, int64, that depends on their places.
fn bits(tensor: &Tensor) -> Tensor {
    let of_kind = match tensor.kind() {
        Kind::Double | Kind::Int64 => Kind::Int64,
        Kind::Float => Kind::Int,
        _ => Kind::Int16,
    };
    let words = tensor.contiguous().view_dtype(of_kind).view(-1);
    let places = Tensor::arange(words.size()[0], (Kind::Int64, words.device())) * 2 + 1;
    (words.to_kind(Kind::Int64) * places).sum(Kind::Int64)
}
