//! Parity with the official implementation's training: every recorded case of
//! training steps in the folder that `VQDIFFUSION_FIXTURES` names (default
//! `tests/fixtures`) is repeated step for step, and its learning-rate curves.

#[path = "parity/case.rs"]
#[allow(dead_code)]
mod case;

use std::path::{Path, PathBuf};

use case::{integers, Case};
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::official::{Document, TEXT};
use vqdiffusion::checkpoint::{Checkpoint, Loader, OpenOptions, WeightSet};
use vqdiffusion::clip::TextEncoder;
use vqdiffusion::diffusion::compat::{gumbel_argmax, LogSchedule};
use vqdiffusion::diffusion::timesteps::TimestepSampler;
use vqdiffusion::diffusion::Objective;
use vqdiffusion::torch::Params;
use vqdiffusion::train::diffusion::model::hidden_matrices;
use vqdiffusion::train::diffusion::step::{accumulate, Shown};
use vqdiffusion::train::engine::learning_rate::LearningRate;
use vqdiffusion::train::official::{learning_rate, OfficialRecipe};
use vqdiffusion::train::{
    ConditionParts, Parameters, RunState, TrainConfig, TrainableWeights, TrainingModel,
};

/// The recipe of the case's official configuration.
fn recipe(case: &Case) -> TrainConfig {
    let path = case.path.join("config.yaml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let yaml = serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let recipe = OfficialRecipe::read(&Document::new(yaml)).unwrap_or_else(|e| panic!("{e}"));
    recipe.train
}

/// A folder beside the case, or the default one, as the case's `start` names it.
fn start_folder(case: &Case) -> PathBuf {
    let start = case.meta["start"].as_str().unwrap_or_default();
    let named = start
        .split_once("../")
        .and_then(|(_, rest)| rest.split_once("/last.pth"));
    let Some((name, _)) = named else {
        panic!("the case does not say what it starts from: {start}")
    };
    let beside = case.path.join("..").join(name);
    if beside.is_dir() {
        return beside;
    }
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

/// The checkpoint in `folder` under the case's own configuration.
fn open(case: &Case, folder: &Path, weights: WeightSet) -> Checkpoint {
    let options = OpenOptions {
        config: Some(case.path.join("config.yaml")),
        weights,
        ..OpenOptions::default()
    };
    Checkpoint::open(&folder.join("last.pth"), &options).unwrap_or_else(|e| panic!("{e}"))
}

/// The trainable weights of a checkpoint, and the model over them.
fn trainable(checkpoint: &Checkpoint) -> (TrainingModel, Parameters) {
    let loader = Loader::new(&checkpoint.state, &checkpoint.path);
    let weights = TrainableWeights::new(&loader, Device::Cpu);
    let params = Params::new(&weights, Device::Cpu, Kind::Float);
    let tower = checkpoint.config.text.as_ref().map(|text| {
        let below = Params::new(&loader, Device::Cpu, Kind::Float).at(TEXT);
        TextEncoder::new(&below, &text.tower)
    });
    let parts = ConditionParts::new(&checkpoint.config, tower, Device::Cpu);
    let model = TrainingModel::new(&params, &parts, &checkpoint.config);
    (model, weights.into_parameters())
}

fn names(case: &Case) -> Vec<String> {
    let names = case.meta["parameter_names"].as_array();
    let names = names.into_iter().flatten();
    names.filter_map(|n| n.as_str().map(String::from)).collect()
}

/// What is recorded after each step, to be stacked.
#[derive(Default)]
struct Recorded {
    rows: std::collections::BTreeMap<String, Vec<Tensor>>,
}

impl Recorded {
    fn push(&mut self, name: &str, value: &Tensor) {
        let rows = self.rows.entry(format!("expected.{name}")).or_default();
        rows.push(value.detach().copy());
    }
}

fn steps(case: &mut Case) {
    let config = recipe(case);
    let folder = start_folder(case);
    let checkpoint = open(case, &folder, WeightSet::Model);
    let (model, parameters) = trainable(&checkpoint);
    let names = names(case);
    let sorted: std::collections::BTreeSet<&String> = names.iter().collect();
    if !parameters.tensors.keys().eq(sorted) {
        case.fail("the trained tensors are not those of meta.parameter_names");
    }
    let start = parameters.copied();
    let schedule = checkpoint.config.schedule();
    let rules = config.rules();
    let mut state = RunState::new(&rules, parameters, hidden_matrices);
    let mut history = TimestepSampler::new(schedule.timesteps(), config.duplicates());
    let ema = trainable(&open(case, &folder, WeightSet::Ema)).1.copied();
    state.ema = Some(ema);
    let objective = Objective::new(&config.objective, &schedule, Device::Cpu);
    let logs = LogSchedule::new(&schedule, Device::Cpu);
    let followed = case.names_below("expected.param.");

    let mut recorded = Recorded::default();
    let all_t = case.input("input.t");
    for step in 0..all_t.size()[0] {
        let input = |name: &str| case.input(&format!("input.{name}")).get(step);
        let (x_0, t) = (input("x_0"), all_t.get(step));
        let log_q = logs.q_pred(&logs.log_one_hot(&x_0), &t); // [B, L, K + 1]
        let x_t = gumbel_argmax(&log_q, &input("uniform").transpose(1, 2));
        recorded.push("x_t", &x_t);
        let p_t = Tensor::full(
            t.size(),
            1.0 / schedule.timesteps() as f64,
            (Kind::Float, Device::Cpu),
        );
        let times = integers(&t);
        let shown = Shown {
            x_0,
            x_t,
            t,
            p_t,
            y: input("cond_emb"),
            dropout: None,
        };
        state.parameters.clear_gradients();
        let outcome = accumulate(&model, &objective, &shown, 1, false);
        let main: Vec<f64> =
            Vec::try_from(outcome.main.to_kind(Kind::Double)).unwrap_or_else(|e| panic!("{e}"));
        history.update(&times, &main);
        let (loss, norm) = (outcome.loss.double_value(&[]), state.gradient_norm());
        recorded.push("loss", &outcome.loss);
        recorded.push("grad_norm", &Tensor::from(norm));
        recorded.push("lr_f64", &Tensor::from(state.learning_rate.rate));
        state.update(&rules, loss, norm);
        recorded.push("lr_after_f64", &Tensor::from(state.learning_rate.rate));
        recorded.push("Lt_history", &Tensor::from_slice(&history.history));

        let norms = |of: &dyn Fn(&str) -> Tensor| {
            let norms: Vec<Tensor> = names.iter().map(|n| of(n).norm()).collect();
            Tensor::stack(&norms, 0)
        };
        let now = &state.parameters.tensors;
        recorded.push("param_norms", &norms(&|n| now[n].detach()));
        recorded.push(
            "param_delta_norms",
            &norms(&|n| now[n].detach() - &start.tensors[n]),
        );
        let ema = &state.ema.as_ref().expect("an average").tensors;
        recorded.push("ema_norms", &norms(&|n| ema[n].shallow_clone()));
        for name in &followed {
            recorded.push(&format!("param.{name}"), &now[name]);
            recorded.push(&format!("grad.{name}"), &now[name].grad());
            recorded.push(&format!("ema.{name}"), &ema[name]);
        }
    }
    for (name, rows) in &recorded.rows {
        case.check(name, &Tensor::stack(rows, 0));
    }
    for (name, moments) in [
        ("expected.adam.exp_avg", &state.optimizer.averages),
        ("expected.adam.exp_avg_sq", &state.optimizer.square_averages),
    ] {
        let meaning = case.meaning(name).to_string();
        // The meaning of the first says which parameter both belong to.
        let of_first = case.meaning("expected.adam.exp_avg").to_string();
        let parameter = names
            .iter()
            .find(|n| meaning.contains(*n) || of_first.contains(*n))
            .unwrap_or_else(|| panic!("{name} belongs to no parameter: {meaning}"));
        case.check(name, &moments.tensors[parameter]);
    }
}

/// The learning rate after each of the recorded losses, in f64.
fn schedules(case: &mut Case) {
    let losses = case.input("input.schedule.loss");
    let losses: Vec<f64> =
        Vec::try_from(losses.to_kind(Kind::Double)).unwrap_or_else(|e| panic!("{e}"));
    for name in case.names_below("expected.schedule.") {
        let settings = name.strip_suffix(".lr_f64").unwrap_or(&name);
        let params = case.meta[format!("schedule.{settings}")].clone();
        let start = params["base_lr"].as_f64().unwrap_or(f64::NAN);
        let scheduler = serde_json::json!({
            "scheduler": { "target": params["target"], "params": params }
        });
        let yaml = serde_yaml::to_value(&scheduler).unwrap_or_else(|e| panic!("{e}"));
        let yaml = Document::new(yaml);
        let config = learning_rate(&yaml, "scheduler", start).unwrap_or_else(|e| panic!("{e}"));
        let mut rate = LearningRate::new(&config, true);
        let rates: Vec<f64> = losses
            .iter()
            .map(|&loss| {
                rate.step(loss);
                rate.rate
            })
            .collect();
        case.check(
            &format!("expected.schedule.{name}"),
            &Tensor::from_slice(&rates),
        );
    }
}

#[test]
fn recorded_training_steps() {
    let root = std::env::var_os("VQDIFFUSION_FIXTURES").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures"),
        PathBuf::from,
    );
    let is_case = |path: &Path| path.join("reference.safetensors").is_file();
    let folders: Vec<PathBuf> = if is_case(&root) {
        vec![root.clone()]
    } else {
        let entries =
            std::fs::read_dir(&root).unwrap_or_else(|e| panic!("{}: {e}", root.display()));
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        paths.filter(|path| is_case(path)).collect()
    };
    let (mut covered, mut failures) = (0, Vec::new());
    for folder in folders {
        let mut case = Case::read(&folder);
        if !case.has("expected.lr_f64") {
            continue; // no case of training steps
        }
        covered += 1;
        case.section("steps", steps);
        case.section("schedules", schedules);
        for line in case.finish(&[]) {
            println!("{line}");
        }
        failures.extend(case.failures);
    }
    assert!(
        covered > 0,
        "no case of training steps in {}",
        root.display()
    );
    assert!(
        failures.is_empty(),
        "{} failures:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
