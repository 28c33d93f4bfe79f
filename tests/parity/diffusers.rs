//! A saved `VQDiffusionPipeline`: the folder is opened as a user opens it, then every
//! part and whole runs under diffusers' rule are compared.

use std::ops::ControlFlow;

use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::clip::ClipTokenizer;
use vqdiffusion::codec::image_codec::to_bytes;
use vqdiffusion::codec::Rounding;
use vqdiffusion::diffusion::compat::{diffusers, gumbel_argmax, LogSchedule};
use vqdiffusion::diffusion::guidance::Prediction;
use vqdiffusion::diffusion::noise::Draw;
use vqdiffusion::diffusion::sampler::{sample, start, Progress, Query};
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::diffusion::{Noise, RevealOrder, ReverseRule, SamplerConfig, Times};
use vqdiffusion::pipeline::{Pipeline, Subject};

use crate::case::Case;
use crate::condition::encode;
use crate::model::load;

/// The saved pipeline of a case.
pub const FOLDER: &str = "pipeline";

pub fn run(case: &mut Case) {
    let Some(pipeline) = case.section("loading", |case| {
        let checkpoint = Checkpoint::open(&case.path.join(FOLDER), &OpenOptions::default())
            .unwrap_or_else(|e| panic!("{e}"));
        load(&checkpoint)
    }) else {
        return;
    };
    case.section("text", |case| text(case, &pipeline));
    case.section("schedule", |case| schedule(case, &pipeline));
    case.section("steps", |case| steps(case, &pipeline));
    case.section("codec", |case| codec(case, &pipeline));
    let runs = case.names_below("expected.pipe.");
    for name in runs.iter().filter_map(|rest| rest.strip_suffix(".tokens")) {
        case.section(name, |case| sampling(case, &pipeline, name));
    }
}

fn text(case: &mut Case, pipeline: &Pipeline) {
    let file = case.path.join("captions.json");
    let json = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
    let captions: Vec<String> = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{e}"));
    let captions: Vec<&str> = captions.iter().map(String::as_str).collect();
    let Some(condition) = &pipeline.config().text else {
        panic!("the model takes no text")
    };
    let tower = &condition.tower;
    let tokenizer = ClipTokenizer::new(tower.vocabulary as usize)
        .and_then(|t| t.with_context_length(tower.context as usize))
        .unwrap_or_else(|e| panic!("{e}"))
        .with_rule(tower.tokens);
    let ids: Vec<Vec<i64>> = captions
        .iter()
        .map(|c| tokenizer.encode(c).unwrap_or_else(|e| panic!("{e}")).ids)
        .collect();
    let ids = Tensor::from_slice(&ids.concat()).view([captions.len() as i64, -1]);
    case.check("expected.text.tokens", &ids);

    let subjects: Vec<Subject> = captions
        .iter()
        .map(|c| Subject::Text(c.to_string()))
        .collect();
    let features = encode(pipeline, &subjects);
    let name = "expected.text.embeds";
    case.check(name, &features);
    let hidden = "expected.text.last_hidden_state";
    if let Some(x) = case.get(hidden) {
        case.mark(hidden);
        let normalised = &x / x.square().sum_dim_intlist(-1, true, Kind::Float).sqrt();
        case.also(name, "hidden state, normalised", &features, &normalised);
    }
}

fn schedule(case: &mut Case, pipeline: &Pipeline) {
    let logs = LogSchedule::new(&pipeline.config().schedule(), Device::Cpu);
    for (name, ours) in [
        ("log_at", &logs.log_at),
        ("log_bt", &logs.log_bt),
        ("log_ct", &logs.log_ct),
        ("log_cumprod_at", &logs.log_cumprod_at),
        ("log_cumprod_bt", &logs.log_cumprod_bt),
        ("log_cumprod_ct", &logs.log_cumprod_ct),
    ] {
        case.check(&format!("expected.buffer.{name}"), ours);
    }
}

/// Network, truncation and one step of the scheduler at single times.
fn steps(case: &mut Case, pipeline: &Pipeline) {
    let (x_t, text) = (case.input("input.x_t"), case.input("input.cond_emb"));
    let batch = x_t.size()[0];
    let denoiser = pipeline.denoiser();
    let condition = denoiser.condition(&text);
    let logs = LogSchedule::new(&pipeline.config().schedule(), Device::Cpu);
    let codes = pipeline.config().denoiser.codes;
    for time in case.names_below("expected.transformer.t") {
        let t: i64 = time.parse().unwrap_or_else(|_| panic!("time {time}"));
        let conditional = denoiser.forward(&x_t, &Tensor::from_slice(&[t]), &condition, None); // [B, L, K]
        let prediction = Prediction {
            conditional,
            unconditional: None,
        };
        let log_p = diffusers::guidance(&prediction, 1.0);
        let name = format!("expected.transformer.t{t}");
        case.check(&name, &log_p.transpose(1, 2));

        // What follows decides on differences: from the recorded output.
        let recorded = case.input(&name).transpose(1, 2).contiguous(); // [B, L, K]
        for rate in case.names_below(&format!("expected.truncate.t{t}.r")) {
            let r = rate.parse().unwrap_or_else(|_| panic!("rate {rate}"));
            let ours = diffusers::truncation(&recorded, Truncation::TopP(r));
            let name = format!("expected.truncate.t{t}.r{rate}");
            case.check(&name, &ours.narrow(-1, 0, codes).transpose(1, 2));
        }
        let log_p = diffusers::truncation(&recorded, Truncation::Off); // [B, L, K + 1]
        let posterior = match t {
            0 => log_p.narrow(-1, 0, codes),
            _ => logs.q_posterior(
                &log_p,
                &x_t,
                &Tensor::full([batch], t, (Kind::Int64, Device::Cpu)),
            ),
        };
        let name = format!("expected.step.t{t}.q_posterior");
        case.check(&name, &posterior.transpose(1, 2));
        let uniform = case.input(&format!("input.step.t{t}.uniform"));
        let drawn = gumbel_argmax(&posterior, &uniform.transpose(1, 2));
        case.check(&format!("expected.step.t{t}.prev_sample"), &drawn);
    }
}

fn codec(case: &mut Case, pipeline: &Pipeline) {
    let codec = pipeline.codec();
    let grid = pipeline.config().denoiser.grid;
    let image = (case.input("input.vq.image") + 1.0) / 2.0 * 255.0; // [B, 3, H, W]
    case.check("expected.vq.latents", &codec.encode_latent(&image));
    let tokens = codec.encode(&image);
    case.check("expected.vq.tokens", &tokens);
    case.check("expected.vq.decoded", &codec.decode_raw(&tokens, grid));
    let tokens = case.input("input.vq.decode_tokens");
    let decoded = codec.decode_raw(&tokens, grid);
    case.check("expected.vq.decoded_tokens", &decoded);
}

/// The numbers that the scheduler drew.
struct RecordedNoise {
    uniform: Tensor, // [S - 1, B, K + 1, L]
    last: Tensor,    // [B, K, L]
}

impl Noise for RecordedNoise {
    fn uniform(&mut self, step: usize, draw: Draw, shape: &[i64]) -> Tensor {
        assert_eq!(draw, Draw::Code, "diffusers' rule draws codes only");
        let numbers = if (step as i64) < self.uniform.size()[0] {
            self.uniform.get(step as i64)
        } else {
            // The mask has no chance at the last step, and no number there.
            let mask = self.last.narrow(1, 0, 1).full_like(0.5);
            Tensor::cat(&[&self.last, &mask], 1)
        };
        let numbers = numbers.transpose(1, 2).contiguous(); // [B, L, K + 1]
        assert_eq!(numbers.size(), shape, "shape of the noise of step {step}");
        numbers
    }

    fn exponential(&mut self, _step: usize, _draw: Draw, _shape: &[i64]) -> Tensor {
        panic!("diffusers' rule draws no positions")
    }
}

fn sampling(case: &mut Case, pipeline: &Pipeline, run: &str) {
    let meta = case.meta[format!("pipe.{run}")].clone();
    let number = |key: &str| {
        let value = meta[key].as_f64();
        value.unwrap_or_else(|| panic!("meta of {run} has no {key}"))
    };
    let prompts: Vec<Subject> = meta["prompts"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|p| Some(Subject::Text(p.as_str()?.to_string())))
        .collect();
    let batch = prompts.len() as i64;
    let config = SamplerConfig {
        steps: number("num_inference_steps") as usize,
        times: Times::Even,
        order: RevealOrder::Independent,
        guidance: number("guidance_scale"),
        guidance_span: None,
        local_steps: 0,
        truncation: Truncation::TopP(number("truncation_rate")),
        revealing: None,
        rule: ReverseRule::Diffusers,
    };
    let plan = pipeline.plan(&config).unwrap_or_else(|e| panic!("{e}"));
    let times: Vec<i64> = plan.steps().iter().map(|step| step.network).collect();
    let name = |rest: &str| format!("expected.pipe.{run}.{rest}");
    case.check(&name("timesteps"), &Tensor::from_slice(&times));

    let guided = config.uses_guidance();
    let condition = pipeline
        .condition(&prompts, guided)
        .unwrap_or_else(|e| panic!("{e}"));
    let mut noise = RecordedNoise {
        uniform: case.input(&format!("input.pipe.{run}.uniform")),
        last: case.input(&format!("input.pipe.{run}.uniform_last")),
    };
    let mut denoise = |query: Query| pipeline.predict(query, &condition);
    let start = start(&plan, batch, &mut noise);
    let mut states = Vec::new();
    let mut observe = |progress: Progress| {
        states.push(progress.tokens.copy());
        ControlFlow::Continue(())
    };
    let tokens = sample(&plan, start, &mut denoise, &mut noise, &mut observe)
        .unwrap_or_else(|e| panic!("{e}"));
    case.check(&name("tokens"), &Tensor::stack(&states, 0));

    let image = pipeline.decode(&tokens).permute([0, 2, 3, 1]); // [B, H, W, 3] in 0…255
    case.check(&name("image"), &(&image / 255.0));
    let bytes = to_bytes(&image, Rounding::Nearest).to_kind(Kind::Int64);
    case.check(&name("image_u8"), &bytes);
}
