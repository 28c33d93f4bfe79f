//! Speed of the measures, random weights: Inception's features of pictures, and precision,
//! recall, density and coverage of two sets:
//! `cargo bench --bench metrics -- --threads 2 --pictures 512 --set 50000`.
//!
//! Prints JSON: features a second with the pictures' preparation, seconds of the measure of
//! all pairs, and the most memory that the process had at any time.

use std::error::Error;
use std::time::Instant;

use clap::Parser;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};
use vqdiffusion::metrics::networks::Inception;
use vqdiffusion::metrics::prdc::prdc;
use vqdiffusion::metrics::preparation::InceptionResize;
use vqdiffusion::picture::{Picture, Pillow};
use vqdiffusion::torch::device::DeviceChoice;
use vqdiffusion::torch::params::RandomWeights;
use vqdiffusion::torch::Params;

#[derive(Parser)]
struct Args {
    /// Pictures whose features are timed.
    #[arg(long, default_value_t = 512)]
    pictures: usize,
    /// Pixels a side of a picture.
    #[arg(long, default_value_t = 256)]
    side: u32,
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Pictures of each set in the measure of all pairs; 0 leaves it out.
    #[arg(long, default_value_t = 50_000)]
    set: i64,
    /// Features of a picture there.
    #[arg(long, default_value_t = 2048)]
    width: i64,
    #[arg(long)]
    threads: Option<i32>,
    #[arg(long, default_value = "cpu")]
    device: DeviceChoice,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<(), Box<dyn Error>> {
    vqdiffusion::torch::runtime::start();
    let args = Args::parse();
    if let Some(threads) = args.threads {
        tch::set_num_threads(threads);
    }
    let device = args.device.available()?;
    let _no_grad = tch::no_grad_guard();
    tch::manual_seed(0);
    let mut report = serde_json::json!({
        "what": "vqdiffusion, speed of the measures",
        "device": args.device.to_string(),
        "threads": tch::get_num_threads(),
    });

    let network = Inception::new(&Params::new(&RandomWeights, device, Kind::Float));
    let pictures: Vec<Picture> = (0..args.pictures).map(|n| picture(n, args.side)).collect();
    let features = |pictures: &[Picture]| {
        let prepared: Vec<Tensor> = pictures
            .par_iter()
            .map(|picture| InceptionResize::Adm.prepare(picture, Pillow::default()))
            .collect();
        let found = network.forward(&Tensor::stack(&prepared, 0).to_device(device));
        found.pool.to_device(Device::Cpu)
    };
    if let Some(first) = pictures.chunks(args.batch).next() {
        let _ = features(first); // warms up
        let began = Instant::now();
        for batch in pictures.chunks(args.batch) {
            let _ = features(batch);
        }
        let seconds = began.elapsed().as_secs_f64();
        report["inception"] = serde_json::json!({
            "pictures": args.pictures,
            "side": args.side,
            "seconds": seconds,
            "features_per_second": args.pictures as f64 / seconds,
        });
    }
    if args.set > 0 {
        let set = || Tensor::rand([args.set, args.width], (Kind::Float, device));
        let (generated, real) = (set(), set());
        let began = Instant::now();
        let figures = prdc(&generated, &real, &[3, 5])?;
        report["precision_recall"] = serde_json::json!({
            "pictures": args.set,
            "width": args.width,
            "seconds": began.elapsed().as_secs_f64(),
            "precision": figures[0].precision,
        });
    }
    report["peak_memory_mib"] = serde_json::json!(peak_memory_mib());
    println!("{report}");
    Ok(())
}

/// Waves, another for every `n`.
fn picture(n: usize, side: u32) -> Picture {
    let value = |i: u32| (127.0 + 120.0 * (f64::from(i) * (0.01 + 0.001 * n as f64)).sin()) as u8;
    Picture {
        width: side,
        height: side,
        rgb: (0..3 * side * side).map(value).collect(),
    }
}

/// The largest resident size so far, by the kernel's count.
fn peak_memory_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
