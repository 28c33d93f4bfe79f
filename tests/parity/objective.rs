//! The training objective: its terms with the recorded times and probabilities, the
//! loss history, the gradient of every parameter, and the dropped condition.

use serde_json::Value;
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::official::TEXT;
use vqdiffusion::checkpoint::{Checkpoint, Loader};
use vqdiffusion::clip::TextEncoder;
use vqdiffusion::diffusion::objective::{Objective, ObjectiveConfig};
use vqdiffusion::diffusion::timesteps::{Duplicates, TimestepSampler};
use vqdiffusion::torch::Params;
use vqdiffusion::train::{ConditionParts, Parameters, TrainableWeights, TrainingModel};

use crate::case::{integers, Case};
use crate::condition;

/// The objective's settings of the case's configuration.
pub fn objective_config(case: &Case) -> ObjectiveConfig {
    let yaml = crate::case::config(case);
    let diffusion = &yaml["model"]["params"]["diffusion_config"]["params"];
    // What is absent is as the original's constructor has it.
    let number = |v: &Value, absent: f64| match v {
        Value::Null => absent,
        v => v.as_f64().unwrap_or_else(|| panic!("not a number: {v}")),
    };
    ObjectiveConfig {
        auxiliary_weight: number(&diffusion["auxiliary_loss_weight"], 0.0),
        adaptive_auxiliary: diffusion["adaptive_auxiliary_loss"] == true,
        mask_weight: [0, 1].map(|i| number(&diffusion["mask_weight"][i], 1.0)),
    }
}

/// The model over trainable weights, f32 on the CPU.
pub fn trainable(checkpoint: &Checkpoint) -> (TrainingModel, Parameters) {
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

pub fn run(case: &mut Case, checkpoint: &Checkpoint) {
    tch::with_grad(|| {
        let (model, parameters) = trainable(checkpoint);
        let groups = case.names_below("expected.loss.");
        let mut groups: Vec<&str> = groups
            .iter()
            .map(|n| n.rsplit_once('.').map_or("", |(group, _)| group))
            .collect();
        groups.dedup();
        for group in groups {
            let _ = terms(case, checkpoint, &model, group);
        }
        gradients(case, checkpoint, &model, &parameters);
        dropped(case, &model);
    });
    importance(case, checkpoint);
}

/// The scalar loss of a group of recorded terms, all of which are compared.
fn terms(case: &mut Case, checkpoint: &Checkpoint, model: &TrainingModel, group: &str) -> Tensor {
    let dot = if group.is_empty() { "" } else { "." };
    let [x_0, x_t, t] = ["x_0", "x_t", "t"].map(|n| case.input(&format!("input.{n}")));
    let p_t = case.input(&format!("input.loss.{group}{dot}pt"));
    let schedule = checkpoint.config.schedule();
    let objective = Objective::new(&objective_config(case), &schedule, Device::Cpu);
    let logits = model.logits(&x_t, &t, &condition::recorded(case), None);
    let terms = objective.terms(&logits, &x_0, &x_t, &t, &p_t);
    let loss = terms.total.mean(Kind::Float) / x_0.size()[1] as f64;

    let t = integers(&t);
    let main: Vec<f64> =
        Vec::try_from(terms.main.detach().to_kind(Kind::Double)).unwrap_or_else(|e| panic!("{e}"));
    let mut times = TimestepSampler::new(schedule.timesteps(), Duplicates::Last);
    times.update(&t, &main);
    for (name, ours) in [
        ("kl", &terms.kl),
        ("decoder_nll", &terms.decoder_nll),
        ("kl_aux", &terms.auxiliary_kl),
        ("kl_loss", &terms.main),
        ("aux_loss", &terms.auxiliary),
        ("vb_loss", &terms.total),
        ("loss", &loss),
        ("Lt_history_after", &Tensor::from_slice(&times.history)),
        ("Lt_count_after", &Tensor::from_slice(&times.count)),
    ] {
        case.check(&format!("expected.loss.{group}{dot}{name}"), ours);
    }
    loss
}

fn gradients(
    case: &mut Case,
    checkpoint: &Checkpoint,
    model: &TrainingModel,
    parameters: &Parameters,
) {
    if !case.has("expected.grad.norms") {
        return;
    }
    terms(case, checkpoint, model, "uniform").backward();
    let gradient = |name: &str| {
        let leaf = parameters.tensors.get(&format!("transformer.{name}"));
        let leaf = leaf.unwrap_or_else(|| panic!("{name} is not a parameter"));
        leaf.grad()
    };
    let names: Vec<String> = case.meta["grad_norm_names"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n.as_str().map(String::from))
        .collect();
    let norms: Vec<Tensor> = names.iter().map(|n| gradient(n).norm()).collect();
    case.check("expected.grad.norms", &Tensor::stack(&norms, 0));
    for name in case.names_below("expected.grad.transformer.") {
        let name = format!("transformer.{name}");
        case.check(&format!("expected.grad.{name}"), &gradient(&name));
    }
}

fn dropped(case: &mut Case, model: &TrainingModel) {
    let (Some(ids), Some(mask)) = (
        case.get("input.drop.condition_token"),
        case.get("input.drop.condition_mask"),
    ) else {
        return;
    };
    // Dropped captions are empty: nothing after the start and end tokens.
    let dropped = mask.select(1, 2).eq(0);
    let features = model.features(&ids, &dropped).detach();
    case.check("expected.drop.cond_emb", &features);
    // Whatever the dropped captions were.
    let others = ids.roll([1], [0]).where_self(&dropped.unsqueeze(1), &ids);
    assert_eq!(model.features(&others, &dropped).detach(), features);
}

fn importance(case: &mut Case, checkpoint: &Checkpoint) {
    let Some(history) = case.get("input.Lt_history") else {
        return;
    };
    let steps = checkpoint.config.schedule().timesteps();
    let mut times = TimestepSampler::new(steps, Duplicates::Mean);
    times.history = Vec::try_from(history.to_kind(Kind::Double)).unwrap_or_else(|e| panic!("{e}"));
    times.count = vec![11.0; steps];
    case.check(
        "expected.pt_all",
        &Tensor::from_slice(&times.probabilities()),
    );
}
