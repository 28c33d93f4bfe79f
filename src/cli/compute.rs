//! Arguments that say what computes.

use clap::Args;
use tch::Device;

use crate::model::ModelConfig;
use crate::pipeline::useful_threads;
use crate::ranks;
use crate::torch::device::{DeviceChoice, DeviceError};

/// More than any machine has cores; the system may refuse to start as many.
const MOST_THREADS: i64 = 1024;

#[derive(Args, Clone, Debug)]
pub struct ComputeArgs {
    /// cpu, cuda or cuda:N [default: cuda if there is one].
    #[arg(long)]
    device: Option<DeviceChoice>,

    /// Threads for CPU work [default: libtorch's choice; to sample, fewer for small models].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=MOST_THREADS))]
    threads: Option<u16>,
}

impl ComputeArgs {
    /// Sets the number of threads and returns the device, which is there. Without a GPU's
    /// number, one of several processes takes the GPU with its own number on this machine, or
    /// the only one.
    pub fn set_up(&self) -> Result<Device, DeviceError> {
        if let Some(threads) = self.threads {
            tch::set_num_threads(threads.into());
        }
        let device = self.device.unwrap_or_else(DeviceChoice::best).available()?;
        match (device, ranks::local_rank()) {
            (Device::Cuda(0), Some(rank)) => DeviceChoice::of_local_rank(rank)?.available(),
            _ => Ok(device),
        }
    }

    /// The number of threads that is asked for, else `usual`.
    #[cfg(feature = "serve")]
    pub fn threads(&self, usual: impl FnOnce() -> i32) -> i32 {
        self.threads.map_or_else(usual, i32::from)
    }

    /// The device that is asked for, whether or not it is there.
    pub fn named(&self) -> Device {
        self.device.unwrap_or_else(DeviceChoice::best).0
    }

    /// Leaves no more threads than are of use to sample `model`, if none are asked for.
    pub fn limit_threads(&self, model: &ModelConfig) {
        if self.threads.is_none() {
            tch::set_num_threads(useful_threads(model));
        }
    }
}
