//! Device and number format as the user names them.

use std::fmt;
use std::str::FromStr;

use tch::{Device, Kind};

/// `cpu`, `cuda` or `cuda:N`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeviceChoice(pub Device);

/// Why a device cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    #[error("device '{0}' is not known (expected cpu, cuda or cuda:N)")]
    Unknown(String),
    #[error(
        "device '{0}' cannot be used: no CUDA device is visible (`vqdiffusion doctor` says why)"
    )]
    NoCuda(String),
    #[error("device 'cuda:{index}' does not exist: {count} CUDA device(s) are visible")]
    OutOfRange { index: usize, count: i64 },
    #[error(
        "the process {local_rank} of this machine (LOCAL_RANK) has no CUDA device: {count} are \
         visible"
    )]
    TooFew { local_rank: usize, count: i64 },
    #[error("number format '{0}' is not known (expected f32, bf16 or f16)")]
    Precision(String),
}

impl FromStr for DeviceChoice {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        match text {
            "cpu" => Ok(DeviceChoice(Device::Cpu)),
            "cuda" => Ok(DeviceChoice(Device::Cuda(0))),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(|index| DeviceChoice(Device::Cuda(index)))
                .ok_or_else(|| DeviceError::Unknown(text.into())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Device::Cuda(index) => write!(f, "cuda:{index}"),
            _ => write!(f, "cpu"),
        }
    }
}

impl DeviceChoice {
    /// CUDA when there is one, else the CPU.
    pub fn best() -> Self {
        DeviceChoice(Device::cuda_if_available())
    }

    /// The CUDA device of the process with this number on its machine.
    ///
    /// # Errors
    ///
    /// Fewer devices than processes, but for one: a launcher may show each process its own.
    pub fn of_local_rank(local_rank: usize) -> Result<Self, DeviceError> {
        let count = tch::Cuda::device_count();
        match count {
            1 => Ok(DeviceChoice(Device::Cuda(0))),
            _ if (local_rank as i64) < count => Ok(DeviceChoice(Device::Cuda(local_rank))),
            _ => Err(DeviceError::TooFew { local_rank, count }),
        }
    }

    /// Checks that the device is really there.
    pub fn available(self) -> Result<Device, DeviceError> {
        if let Device::Cuda(index) = self.0 {
            let count = tch::Cuda::device_count();
            if count == 0 {
                return Err(DeviceError::NoCuda(self.to_string()));
            }
            if index as i64 >= count {
                return Err(DeviceError::OutOfRange { index, count });
            }
        }
        Ok(self.0)
    }
}

extern "C" {
    fn vqd_set_deterministic();
}

/// Makes libtorch choose operators that give the same bits in every run on the same
/// GPU with the same batch. Call before the first CUDA work.
pub fn use_deterministic_operators() {
    // cuBLAS is only reproducible with a fixed workspace, which it reads from here.
    std::env::set_var("CUBLAS_WORKSPACE_CONFIG", ":4096:8");
    // SAFETY: sets flags of libtorch's global context.
    unsafe { vqd_set_deterministic() }
}

/// Number format of the denoiser's weights and activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floating point.
    F32,
    /// bfloat16: the range of f32, 8 bits of precision.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Precision {
    pub fn kind(self) -> Kind {
        match self {
            Precision::F32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
            Precision::F16 => Kind::Half,
        }
    }

    /// The fastest format that the device computes in natively: bf16 on CUDA and
    /// on CPUs with AVX512-BF16 or AMX, else f32.
    pub fn native(device: Device) -> Self {
        match device {
            Device::Cuda(_) => Precision::Bf16,
            _ if cpu_has_bf16() => Precision::Bf16,
            _ => Precision::F32,
        }
    }
}

impl FromStr for Precision {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        [Precision::F32, Precision::Bf16, Precision::F16]
            .into_iter()
            .find(|precision| precision.to_string() == text)
            .ok_or_else(|| DeviceError::Precision(text.into()))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
        })
    }
}

/// Whether this CPU multiplies bf16 natively (AVX512-BF16 or AMX-BF16).
pub fn cpu_has_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        // Leaf 7: sub-leaf 1 EAX bit 5 is AVX512-BF16, sub-leaf 0 EDX bit 22 AMX-BF16.
        let highest = std::arch::x86_64::__cpuid(0).eax;
        if highest >= 7 {
            let leaf0 = std::arch::x86_64::__cpuid_count(7, 0);
            let leaf1 = std::arch::x86_64::__cpuid_count(7, 1);
            return leaf1.eax & (1 << 5) != 0 || leaf0.edx & (1 << 22) != 0;
        }
    }
    false
}
