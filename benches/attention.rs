//! Attention at the shapes of a guided step, one picture, with its backward pass, against
//! libtorch's `scaled_dot_product_attention` and the rate of a linear layer in the same run:
//! `cargo bench --bench attention -- --threads 2`.
//!
//! Prints a line of JSON a shape and number format: milliseconds, the best of alternating
//! repeats, and GFLOP/s. A multiplication and an addition count each; the backward pass counts
//! five products for the forward pass's two.

use std::error::Error;
use std::time::Instant;

use clap::Parser;
use tch::{Device, Kind, Tensor};
use vqdiffusion::torch::attention::{attend, Mask};
use vqdiffusion::torch::profile::linear_rate;

#[derive(Parser)]
struct Args {
    #[arg(long)]
    threads: Option<i32>,
    /// Repeats of each.
    #[arg(long, default_value_t = 8)]
    repeats: usize,
    /// Passed by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

struct Shape {
    name: &'static str,
    queries: i64,
    keys: i64,
    head: i64,
}

const ROWS: i64 = 2;
const HEADS: i64 = 16;
const SHAPES: [Shape; 4] = [
    Shape {
        name: "B, image",
        queries: 1024,
        keys: 1024,
        head: 64,
    },
    Shape {
        name: "B, text",
        queries: 1024,
        keys: 77,
        head: 64,
    },
    Shape {
        name: "S, image",
        queries: 1024,
        keys: 1024,
        head: 12,
    },
    Shape {
        name: "S, text",
        queries: 1024,
        keys: 77,
        head: 12,
    },
];

fn libtorch(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    let [q, k, v] = [q, k, v].map(|x| x.unflatten(2, [HEADS, -1]).transpose(1, 2));
    Tensor::scaled_dot_product_attention(&q, &k, &v, None::<&Tensor>, 0.0, false, None, false)
        .transpose(1, 2)
        .flatten(2, 3)
}

fn own(q: &Tensor, k: &Tensor, v: &Tensor) -> Tensor {
    attend(q, k, v, HEADS, Mask::Nothing)
}

type Attention = fn(&Tensor, &Tensor, &Tensor) -> Tensor;

/// Seconds of the forward and the backward pass.
fn time(attention: Attention, inputs: &[Tensor; 3], arriving: &Tensor) -> [f64; 2] {
    let [q, k, v] = inputs;
    let began = Instant::now();
    let out = attention(q, k, v);
    let forward = began.elapsed().as_secs_f64();
    let loss = (&out * arriving).sum(Kind::Float);
    let began = Instant::now();
    Tensor::run_backward(&[loss], &[q, k, v], false, false);
    [forward, began.elapsed().as_secs_f64()]
}

fn main() -> Result<(), Box<dyn Error>> {
    vqdiffusion::torch::runtime::start();
    let args = Args::parse();
    if let Some(threads) = args.threads {
        tch::set_num_threads(threads);
    }
    tch::manual_seed(0);
    for kind in [Kind::Float, Kind::BFloat16] {
        let randn = |shape: &[i64]| Tensor::randn(shape, (Kind::Float, Device::Cpu)).to_kind(kind);
        let dtype = if kind == Kind::Float { "f32" } else { "bf16" };

        let rate = |flop: f64, seconds: f64| (flop / seconds / 1e9).round();
        let product = linear_rate(kind, args.repeats).round();

        for shape in &SHAPES {
            let width = HEADS * shape.head;
            let leaf = |rows: i64| randn(&[ROWS, rows, width]).set_requires_grad(true);
            let inputs = [shape.queries, shape.keys, shape.keys].map(leaf);
            let arriving = randn(&[ROWS, shape.queries, width]);
            let mut best = [[f64::INFINITY; 2]; 2];
            for _ in 0..args.repeats.max(1) {
                for (best, attention) in best.iter_mut().zip([own as Attention, libtorch]) {
                    let found = time(attention, &inputs, &arriving);
                    *best = [0, 1].map(|i| best[i].min(found[i]));
                }
            }
            let flop = 4.0 * (ROWS * shape.queries * shape.keys * width) as f64;
            let side = |[forward, backward]: [f64; 2]| {
                serde_json::json!({
                    "forward_ms": forward * 1e3,
                    "forward_gflops": rate(flop, forward),
                    "backward_ms": backward * 1e3,
                    "backward_gflops": rate(2.5 * flop, backward),
                })
            };
            println!(
                "{}",
                serde_json::json!({
                    "what": "attention of 2 rows and 16 heads",
                    "shape": shape.name,
                    "dtype": dtype,
                    "threads": tch::get_num_threads(),
                    "product_gflops": product,
                    "ours": side(best[0]),
                    "libtorch": side(best[1]),
                })
            );
        }
    }
    Ok(())
}
