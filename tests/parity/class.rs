//! What only class-conditional cases record: the null class as a row of the table, and
//! as the mean of a table without that row.

use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::official::DENOISER;
use vqdiffusion::checkpoint::{Checkpoint, Loader};
use vqdiffusion::torch::{Init, Params, WeightSource};
use vqdiffusion::transformer::config::{AdaptiveNorm, IndexEmbedding};
use vqdiffusion::transformer::{Conditioning, Denoiser, DenoiserConfig, NullClass};

use crate::case::{integers, Case};
use crate::condition;
use crate::diffusion::guided;

/// The weights of a model of classes without the row of a learned null class; the tables
/// have `rows` rows.
struct WithoutNullRow<'a> {
    loader: Loader<'a>,
    rows: i64,
}

impl WeightSource for WithoutNullRow<'_> {
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        if !name.ends_with(".ln2.emb.weight") {
            return self.loader.weight(name, shape, init);
        }
        let stored = [self.rows, shape[1]];
        let table = self.loader.weight(name, &stored, init);
        table.narrow(0, 0, shape[0])
    }
}

pub fn run(case: &mut Case, checkpoint: &Checkpoint) {
    let config = &checkpoint.config.denoiser;
    let Conditioning::Class {
        classes,
        null,
        embedding,
        norm,
    } = config.condition
    else {
        panic!("not a class-conditional model");
    };
    let none = Tensor::from_slice(&[classes]);
    let rows = case.input("input.x_t").size()[0];
    let nobody = none.repeat([rows]);

    if null == NullClass::Learned {
        let learned = network(Loader::new(&checkpoint.state, &checkpoint.path), config);
        let ours = logits(case, &learned, &nobody);
        case.check("expected.logits_null_class_row", &ours);
        let labels = condition::recorded(case);
        guided(case, &learned, "extra_class", &labels, &none);
    }
    if (embedding, norm) != (IndexEmbedding::Table, AdaptiveNorm::Layer) {
        return; // nothing has a mean
    }

    let loader = Loader::new(&checkpoint.state, &checkpoint.path);
    let config = DenoiserConfig {
        condition: Conditioning::class(classes, NullClass::Mean),
        ..config.clone()
    };
    let rows = classes + i64::from(null == NullClass::Learned);
    let mean = network(WithoutNullRow { loader, rows }, &config);
    let all_mean = logits(case, &mean, &nobody);
    case.check("expected.logits_null_class_mean", &all_mean);
    // The original decides by the first sample: all of this batch got the mean.
    case.check("expected.logits_null_mixed_first", &all_mean);
    if case.has("expected.logits_null_mixed_first") {
        one_by_one(case, &mean, classes);
    }
    if !case.names_below("expected.cfg.mean_class.").is_empty() {
        let labels = case.get("input.label_no_extra");
        let labels = labels.unwrap_or_else(|| condition::recorded(case));
        guided(case, &mean, "mean_class", &labels, &none);
    }
}

fn network(weights: impl WeightSource, config: &DenoiserConfig) -> Denoiser {
    let root = Params::new(&weights, Device::Cpu, Kind::Float);
    let mut denoiser = Denoiser::new(&root.at(DENOISER), config);
    denoiser.prepare();
    denoiser
}

/// `[B, K, L]` of the recorded tokens and times under `classes` `[B]`.
fn logits(case: &Case, denoiser: &Denoiser, classes: &Tensor) -> Tensor {
    let (x_t, t) = (case.input("input.x_t"), case.input("input.t"));
    let condition = denoiser.condition(classes);
    denoiser.forward(&x_t, &t, &condition, None).transpose(1, 2)
}

/// Ours decides sample by sample: the labels of the mixed batch, 1000 first, give the
/// mean to the first sample alone.
fn one_by_one(case: &mut Case, denoiser: &Denoiser, classes: i64) {
    let name = "expected.logits_null_mixed_first";
    let labels = Tensor::from_slice(&[classes, 5, 6, 7]);
    let mixed = logits(case, denoiser, &labels);
    let expected = case.input(name);
    assert_eq!(expected.size()[0], labels.size()[0], "labels of {name}");
    let first = expected.narrow(0, 0, 1);
    case.also(name, "first sample", &mixed.narrow(0, 0, 1), &first);
    let classes = logits(case, denoiser, &Tensor::from_slice(&[5, 5, 6, 7]));
    for row in 1..4 {
        let (ours, own) = (mixed.narrow(0, row, 1), classes.narrow(0, row, 1));
        case.also(name, &format!("sample {row} keeps its class"), &ours, &own);
        let mean = expected.narrow(0, row, 1);
        let largest = (&ours - mean).abs().max().double_value(&[]);
        if largest < 100.0 * case.atol(name) {
            let label = integers(&labels)[row as usize];
            case.fail(format!("{name}: class {label} gives the mean of all"));
        }
    }
}
