//! The processes that train together: which samples are whose, and the one place where their
//! gradients and statistics meet.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tch::{Device, Kind, Tensor};

use super::parameters::Parameters;
use super::settings::GradientFormat;
use crate::torch::c10d::{C10dError, Group, Reducer, Store};
use crate::torch::host::values;
use crate::train::TrainError;

/// How long processes wait for each other: one of them may validate or write meanwhile.
const PATIENCE: Duration = Duration::from_secs(2 * 3600);
/// How long they wait for each other at the start.
const START: Duration = Duration::from_secs(300);

/// This process among those that train together.
pub struct Ranks {
    rank: usize,
    count: usize,
    joined: Option<Joined>,
}

struct Joined {
    // Fields are dropped in this order.
    reducer: Option<Reducer>,
    group: Group,
    store: Store,
}

/// A number that the environment gives.
fn number(name: &'static str) -> Result<Option<usize>, TrainError> {
    let Ok(found) = std::env::var(name) else {
        return Ok(None);
    };
    let parsed = found.parse();
    parsed.map(Some).map_err(|_| TrainError::Value {
        key: name,
        found,
        expected: "a number of processes, as torchrun sets it".into(),
    })
}

impl Ranks {
    /// A process that trains alone.
    pub fn alone() -> Self {
        Ranks {
            rank: 0,
            count: 1,
            joined: None,
        }
    }

    /// This process among those that the environment names, as torchrun and our own launcher
    /// do it (`RANK`, `WORLD_SIZE`, `MASTER_ADDR`, `MASTER_PORT`); alone without these.
    ///
    /// # Errors
    ///
    /// Variables without sense, and processes that do not come.
    pub fn from_environment() -> Result<Self, TrainError> {
        let (Some(rank), Some(count)) = (number("RANK")?, number("WORLD_SIZE")?) else {
            return Ok(Self::alone());
        };
        if rank >= count {
            return Err(TrainError::Value {
                key: "RANK",
                found: rank.to_string(),
                expected: format!("below WORLD_SIZE ({count})"),
            });
        }
        if count == 1 {
            return Ok(Self::alone());
        }
        let variable = |name: &'static str| {
            std::env::var(name).map_err(|_| TrainError::Missing {
                key: name.into(),
                what: "where the processes meet, as torchrun sets it".into(),
            })
        };
        let (host, port) = (variable("MASTER_ADDR")?, variable("MASTER_PORT")?);
        let port: u16 = port.parse().map_err(|_| TrainError::Value {
            key: "MASTER_PORT",
            found: port.clone(),
            expected: "a port".into(),
        })?;
        // The launcher holds the store, or else rank 0.
        let held = std::env::var("TORCHELASTIC_USE_AGENT_STORE").is_ok_and(|v| v == "True");
        let attempt = std::env::var("TORCHELASTIC_RESTART_COUNT").unwrap_or_default();
        let store = || {
            let store = Store::at(&host, port, rank == 0 && !held, START)?;
            store.below(&format!("/vqdiffusion/{attempt}/"))
        };
        Self::meet(store().map_err(TrainError::Ranks)?, rank, count)
    }

    /// Process `rank` of the `count` that meet in `store`.
    ///
    /// # Errors
    ///
    /// Processes that do not come.
    pub fn meet(store: Store, rank: usize, count: usize) -> Result<Self, TrainError> {
        let group = Group::gloo(&store, rank, count, PATIENCE).map_err(TrainError::Ranks)?;
        Ok(Ranks {
            rank,
            count,
            joined: Some(Joined {
                reducer: None,
                group,
                store,
            }),
        })
    }

    /// The number of processes.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The number of this process, below [`count`](Self::count).
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Whether this process writes and speaks for all.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    pub fn is_alone(&self) -> bool {
        self.count == 1
    }

    /// This process's part of the samples of a step, which can be divided.
    pub fn own(&self, samples: &Range<u64>) -> Range<u64> {
        let each = (samples.end - samples.start) / self.count as u64;
        let first = samples.start + each * self.rank as u64;
        first..first + each
    }

    /// The tensors of all processes, by rank along the first dimension, on the CPU; of one
    /// process its own.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn gathered(&self, tensor: &Tensor) -> Result<Tensor, TrainError> {
        let tensor = tensor.to_device(Device::Cpu);
        match &self.joined {
            None => Ok(tensor),
            Some(joined) => {
                let all = joined
                    .group
                    .all_gather(&tensor)
                    .map_err(TrainError::Ranks)?;
                Ok(Tensor::cat(&all, 0))
            }
        }
    }

    /// The sum of the tensors of all processes, on the CPU.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn summed(&self, tensor: &Tensor) -> Result<Tensor, TrainError> {
        let tensor = tensor.to_device(Device::Cpu);
        match &self.joined {
            None => Ok(tensor),
            Some(joined) => joined.group.sum(&tensor).map_err(TrainError::Ranks),
        }
    }

    /// Whether this is so in any process.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn any(&self, here: bool) -> Result<bool, TrainError> {
        if self.is_alone() {
            return Ok(here);
        }
        let flag = Tensor::from_slice(&[i64::from(here)]);
        Ok(values::<i64>(&self.summed(&flag)?)[0] > 0)
    }

    /// The number that the first process has; the others wait for it.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn of_first(&self, value: f64) -> Result<f64, TrainError> {
        let Some(joined) = &self.joined else {
            return Ok(value);
        };
        let value = Tensor::from_slice(&[value]).to_kind(Kind::Double);
        joined
            .group
            .broadcast(&[&value])
            .map_err(TrainError::Ranks)?;
        Ok(values(&value)[0])
    }

    /// Gives `tensors` the values that they have in the first process.
    ///
    /// # Errors
    ///
    /// Tensors of other shapes there, and a process that is gone.
    pub fn share_of_first(&self, tensors: &[&Tensor]) -> Result<(), TrainError> {
        match &self.joined {
            None => Ok(()),
            Some(joined) => joined.group.broadcast(tensors).map_err(TrainError::Ranks),
        }
    }

    /// The path that the first process finds; the others wait for it.
    ///
    /// # Errors
    ///
    /// What `find` says, and a process that is gone.
    pub fn path_of_first(
        &self,
        find: impl FnOnce() -> Result<Option<PathBuf>, TrainError>,
    ) -> Result<Option<PathBuf>, TrainError> {
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
            joined.store.set(NAME, bytes).map_err(TrainError::Ranks)?;
            return Ok(found);
        }
        let bytes = joined.store.get(NAME).map_err(TrainError::Ranks)?;
        let path = Path::new(std::ffi::OsStr::from_bytes(&bytes));
        Ok((!bytes.is_empty()).then(|| path.to_path_buf()))
    }

    /// Gives `parameters` the values of the first process, and begins to average their
    /// gradients, which are sent as `format` says. All of them must get one in every backward
    /// pass.
    ///
    /// # Errors
    ///
    /// Other parameters in another process, or one that is gone.
    pub fn begin(
        &mut self,
        parameters: &Parameters,
        format: GradientFormat,
    ) -> Result<(), TrainError> {
        let tensors: Vec<&Tensor> = parameters.tensors.values().collect();
        self.share_of_first(&tensors)?;
        if let Some(joined) = &mut self.joined {
            let reducer = Reducer::new(&joined.group, &tensors, format == GradientFormat::Bf16);
            joined.reducer = Some(reducer.map_err(TrainError::Ranks)?);
        }
        Ok(())
    }

    /// Whether gradients are averaged from now on, or need not be.
    pub fn has_begun(&self) -> bool {
        self.joined.as_ref().is_none_or(|j| j.reducer.is_some())
    }

    /// Called before the forward pass of a part of a step; the `last` part's backward pass
    /// ends with averaged gradients.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub fn before_part(&self, last: bool) -> Result<(), TrainError> {
        self.with_reducer(|reducer| reducer.prepare(last))
    }

    /// Called after the backward pass of the last part of a step.
    ///
    /// # Errors
    ///
    /// Gradients that did not come, and a process that is gone.
    pub fn after_step(&self) -> Result<(), TrainError> {
        self.with_reducer(Reducer::check)
    }

    fn with_reducer(
        &self,
        call: impl FnOnce(&Reducer) -> Result<(), C10dError>,
    ) -> Result<(), TrainError> {
        match self.joined.as_ref().and_then(|j| j.reducer.as_ref()) {
            Some(reducer) => call(reducer).map_err(TrainError::Ranks),
            None => Ok(()),
        }
    }
}
