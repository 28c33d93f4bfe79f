//! Which operators the time of some work goes to, from the callbacks of libtorch's profiler.

use std::ffi::{c_char, CStr};
use std::time::Instant;

use tch::{Device, Kind, Tensor};

use super::linear::Linear;
use super::shim::{done, free};

extern "C" {
    fn vqd_profile_start() -> *mut c_char;
    fn vqd_profile_stop() -> *mut c_char;
}

/// What the calls of one operator took together.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct OperatorTime {
    pub operator: String,
    pub calls: u64,
    /// Seconds on the host, without those of operators inside.
    pub seconds: f64,
    /// 10⁹ floating-point operations; 0 where the operator makes no products.
    pub gflop: f64,
}

/// Does `work` and says where its time went, most first. One profile at a time; on a GPU
/// it is the time of starting kernels that is seen.
pub fn profiled<T>(work: impl FnOnce() -> T) -> (T, Vec<OperatorTime>) {
    // SAFETY: takes and touches nothing of ours.
    done("profile", unsafe { vqd_profile_start() });
    let made = work();
    // SAFETY: returns a NUL-terminated string that is ours to free.
    let text = unsafe {
        let lines = vqd_profile_stop();
        let text = CStr::from_ptr(lines).to_string_lossy().into_owned();
        free(lines);
        text
    };
    let mut times: Vec<OperatorTime> = text.lines().filter_map(operator_time).collect();
    times.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
    (made, times)
}

fn operator_time(line: &str) -> Option<OperatorTime> {
    let mut fields = line.split('\t');
    Some(OperatorTime {
        operator: fields.next()?.into(),
        calls: fields.next()?.parse().ok()?,
        seconds: fields.next()?.parse().ok()?,
        gflop: fields.next()?.parse().ok()?,
    })
}

/// 10⁹ floating-point operations a second of a large linear layer on the CPU, packed for
/// inference: 2048 rows from width 1024 to 4096. The best of `rounds`, at least one.
pub fn linear_rate(kind: Kind, rounds: usize) -> f64 {
    let _no_grad = tch::no_grad_guard();
    let randn = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
    let bias = Tensor::zeros([4096], (kind, Device::Cpu));
    let mut layer = Linear::from_tensors(randn([4096, 1024]), bias);
    layer.pack();
    let x = randn([2048, 1024]);
    let seconds = (0..rounds.max(1))
        .map(|_| {
            let began = Instant::now();
            let _ = layer.forward(&x);
            began.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min);
    2.0 * 2048.0 * 1024.0 * 4096.0 / seconds / 1e9
}
