//! `vqdiffusion doctor`: what is found of libtorch and the machine, and what to do
//! where something is missing.

use std::io::Write;
use std::process::ExitCode;

use super::CliResult;
use crate::memory;
use crate::torch::cuda::{torch_library_folder, CudaLibrary};
use crate::torch::device::{cpu_has_bf16, DeviceChoice, Precision};
use crate::torch::version;

pub fn run(cuda: &CudaLibrary) -> CliResult {
    let mut out = std::io::stdout().lock();
    let mut line = |name: &str, value: String| writeln!(out, "{name:<12} {value}");
    line("vqdiffusion", env!("CARGO_PKG_VERSION").into())?;
    let folder = torch_library_folder();
    let place = folder.map_or("place unknown".into(), |f| f.display().to_string());
    line("libtorch", format!("{} in {place}", version::libtorch()))?;
    line(
        "cpu",
        format!(
            "{}, {} threads",
            version::cpu_capability(),
            tch::get_num_threads()
        ),
    )?;
    line("memory", memory_line())?;
    line("bf16 on cpu", match cpu_has_bf16() {
        true => "native (AVX512-BF16 or AMX); the default for --dtype".into(),
        false => "not native: this CPU has neither AVX512-BF16 nor AMX; f32 is the default and faster".into(),
    })?;
    line("cuda", describe_cuda(cuda))?;
    for index in 0..tch::Cuda::device_count() {
        line(
            "",
            format!(
                "cuda:{index} ({} is the default for --dtype)",
                Precision::native(tch::Device::Cuda(index as usize))
            ),
        )?;
    }
    line("c10d", version::c10d(cuda))?;
    line("cuda graphs", version::graphs(cuda))?;
    line(
        "device",
        format!("{} is the default for --device", DeviceChoice::best()),
    )?;
    Ok(ExitCode::SUCCESS)
}

fn describe_cuda(cuda: &CudaLibrary) -> String {
    let devices = tch::Cuda::device_count();
    match cuda {
        CudaLibrary::Loaded(path) if devices > 0 => {
            format!("{devices} device(s), {}", path.display())
        }
        CudaLibrary::Loaded(path) => format!(
            "{} is loaded, but no device is visible: check `nvidia-smi` and CUDA_VISIBLE_DEVICES",
            path.display()
        ),
        CudaLibrary::Absent(folder) => format!(
            "no libtorch_cuda.so in {}: a CPU build. On a machine with an NVIDIA GPU run \
             `scripts/setup --cuda`, or set LD_LIBRARY_PATH to the lib folder of a PyTorch 2.11.0 with CUDA",
            folder.display()
        ),
        CudaLibrary::Failed { path, reason } => format!(
            "{} could not be loaded: {reason}. Its CUDA libraries must lie beside it or in LD_LIBRARY_PATH",
            path.display()
        ),
        CudaLibrary::Unknown => "the folder of libtorch could not be found".into(),
    }
}

fn memory_line() -> String {
    const GIB: f64 = (1u64 << 30) as f64;
    match (memory::available(), memory::total()) {
        (Some(free), Some(total)) => {
            let (free, total) = (free as f64 / GIB, total as f64 / GIB);
            format!("{free:.1} of {total:.1} GiB free")
        }
        _ => "unknown (/proc/meminfo cannot be read)".into(),
    }
}
