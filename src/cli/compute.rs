//! Arguments that say what computes.

use clap::Args;
use tch::Device;

use crate::torch::device::{DeviceChoice, DeviceError};

#[derive(Args, Clone, Debug)]
pub struct ComputeArgs {
    /// cpu, cuda or cuda:N [default: cuda if there is one].
    #[arg(long)]
    device: Option<DeviceChoice>,

    /// Threads for CPU work [default: libtorch's choice].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    threads: Option<u16>,
}

impl ComputeArgs {
    /// Sets the number of threads and returns the device, which is there.
    pub fn set_up(&self) -> Result<Device, DeviceError> {
        if let Some(threads) = self.threads {
            tch::set_num_threads(threads.into());
        }
        self.device.unwrap_or_else(DeviceChoice::best).available()
    }
}
