//! Networks with weights made by formula, on recorded pictures.

use serde_json::Value;
use std::path::Path;
use tch::{Device, Kind, Tensor};
use vqdiffusion::checkpoint::StateDict;
use vqdiffusion::clip::ClipActivation;
use vqdiffusion::metrics::clip_score::{cosines, scaled};
use vqdiffusion::metrics::networks::clip::{self, openai_names, ClipConfig};
use vqdiffusion::metrics::networks::dinov2::{self, facebook_names, Dinov2Config, PositionTable};
use vqdiffusion::metrics::networks::inception::{self, CLASSES};
use vqdiffusion::metrics::networks::resnet::{self, ResNetConfig};
use vqdiffusion::metrics::networks::weights::load;
use vqdiffusion::metrics::networks::{Clip, Dinov2, Inception, Lpips, ResNet};
use vqdiffusion::metrics::preparation::{
    imagenet, symmetric, ClipCrop, DinoResize, InceptionResize,
};
use vqdiffusion::picture::Picture;

use crate::case::{integers, Case};
use crate::pictures::{picture, pictures, PILLOW};
use crate::{check, check_value, mean_std, weights};

pub fn run(case: &mut Case) {
    let networks = case.meta["networks"].clone();
    if case.meta["inception_formula"].is_object() {
        case.section("inception", inception);
    }
    if networks["inception"].is_object() {
        case.section("inception of TensorFlow's resize", inception_tf1);
    }
    let names = networks.as_object().into_iter().flatten();
    for (name, network) in names {
        let config = &network["config"];
        case.section(name, |case| match name.as_str() {
            "vgg16" => lpips(case),
            "resnet50" => resnet(case, name),
            _ if config["vision"].is_object() => clip_network(case, name, network),
            _ if config["layer_norm_eps"].is_f64() => dino(case, name, network),
            _ => {}
        });
    }
}

/// The named network's tensors.
fn state(case: &Case, name: &str) -> StateDict {
    let salt = case.meta["salt"].as_str().unwrap_or_default();
    let parameters = &case.meta["networks"][name]["parameters"];
    weights::state(&format!("{salt}{name}."), parameters)
}

fn batch(pictures: impl IntoIterator<Item = Tensor>) -> Tensor {
    Tensor::stack(&pictures.into_iter().collect::<Vec<_>>(), 0)
}

/// The first values of `ours`, as many as `name` records.
fn check_first(case: &mut Case, name: &str, ours: &Tensor) {
    let count = case.input(name).size().last().copied().unwrap_or(0);
    check(case, name, &ours.narrow(-1, 0, count));
}

fn inception(case: &mut Case) {
    let state = weights::state("", &case.meta["inception_formula"]["parameters"]);
    let bias = state.get("fc.bias").expect("fc.bias").read().expect("f32");
    let network = build_inception(&state);
    for (i, picture) in pictures(case, "inception_").iter().enumerate() {
        let image = InceptionResize::LegacyPytorch
            .prepare(picture, PILLOW)
            .unsqueeze(0);
        let mut depths = Vec::new();
        let features = network.forward_observed(&image, |x| depths.push(x.shallow_clone()));
        let name = |what: &str| format!("expected.inception.{i}.{what}");
        for (depth, x) in depths.iter().take(3).enumerate() {
            let moments = mean_std(&x.squeeze_dim(0).flatten(1, -1));
            check(case, &name(&format!("block{depth}_mean")), &moments.get(0));
            check(case, &name(&format!("block{depth}_std")), &moments.get(1));
        }
        check(case, &name("pool3"), &features.pool.squeeze_dim(0));
        let logits = network.logits(&features.pool).view([CLASSES]) + &bias;
        check(case, &name("fc_logits"), &logits);
    }
}

fn build_inception(state: &StateDict) -> Inception {
    load(
        state,
        Path::new("formula"),
        Device::Cpu,
        inception::known_and_ignored,
        Inception::new,
    )
    .unwrap_or_else(|e| panic!("{e}"))
    .network
}

/// Names and shapes as in the other case, other values.
fn inception_tf1(case: &mut Case) {
    let beside = case.path.with_file_name("metrics").join("reference.json");
    let own = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metrics/reference.json");
    let path = if beside.is_file() { beside } else { own };
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let list: Value = serde_json::from_str(&text).expect("JSON");
    let salt = case.meta["salt"].as_str().unwrap_or_default();
    let parameters = &list["meta"]["inception_formula"]["parameters"];
    let network = build_inception(&weights::state(&format!("{salt}inception."), parameters));
    for (i, picture) in pictures(case, "picture_").iter().enumerate() {
        let name = |what: &str| format!("expected.inception.{i}.{what}");
        let see = |resize: InceptionResize| {
            network.forward(&resize.prepare(picture, PILLOW).unsqueeze(0))
        };
        let tf1 = see(InceptionResize::Adm);
        let pool = tf1.pool.squeeze_dim(0);
        check_first(case, &name("pool3_tf1"), &pool);
        check(case, &name("pool3_tf1_mean_std"), &mean_std(&pool));
        let logits = network.logits(&tf1.pool).squeeze_dim(0);
        check_first(case, &name("logits_unbiased_tf1"), &logits);
        check(case, &name("sfid_tf1"), &tf1.spatial.squeeze_dim(0));
        let pytorch = see(InceptionResize::LegacyPytorch).spatial.squeeze_dim(0);
        check(case, &name("sfid_pytorch_fid"), &pytorch);
    }
}

fn resnet(case: &mut Case, name: &str) {
    let state = state(case, name);
    let path = Path::new(name);
    let config = ResNetConfig::infer(&state, path).unwrap_or_else(|e| panic!("{e}"));
    let network = load(&state, path, Device::Cpu, resnet::known_and_ignored, |p| {
        ResNet::new(p, &config)
    });
    let network = network.unwrap_or_else(|e| panic!("{e}")).network;
    let logits = |picture: &Picture| {
        let seen = imagenet(picture).unsqueeze(0);
        network.forward(&seen).squeeze_dim(0)
    };
    let mut all = Vec::new();
    for (i, picture) in pictures(case, "clip_").iter().enumerate() {
        let name = format!("expected.resnet.{i}.logits_224");
        if case.has(&name) {
            let ours = logits(picture);
            check_first(case, &name, &ours);
            check(case, &format!("{name}_mean_std"), &mean_std(&ours));
            all.push(ours);
        }
    }
    if let [a, b] = &all[..] {
        let gap = (a - b).to_kind(Kind::Double).square();
        let mean = gap.mean(Kind::Double).double_value(&[]);
        check_value(case, "expected.resnet.mse_224", mean);
    }
    let crop = picture(case, "picture_1.png").map(|picture| picture.crop(0, 0, 256, 256));
    if let (Some(crop), true) = (crop, case.has("expected.resnet.logits_256")) {
        check_first(case, "expected.resnet.logits_256", &logits(&crop));
    }
}

fn dino(case: &mut Case, name: &str, network: &Value) {
    let state = facebook_names(&state(case, name)).unwrap_or_else(|e| panic!("{e}"));
    let path = Path::new(name);
    let config = Dinov2Config::infer(&state, path).unwrap_or_else(|e| panic!("{e}"));
    let heads = network["config"]["num_attention_heads"].as_i64();
    let config = Dinov2Config {
        heads: heads.expect("heads"),
        ..config
    };
    let mut network = load(&state, path, Device::Cpu, dinov2::known_and_ignored, |p| {
        Dinov2::new(p, &config)
    })
    .unwrap_or_else(|e| panic!("{e}"))
    .network;
    let prepared: Vec<Tensor> = pictures(case, "dino_")
        .iter()
        .map(|picture| DinoResize::Pil.prepare(picture, dinov2::SIDE, PILLOW))
        .collect();
    for (rule, positions) in [
        ("hub", PositionTable::Hub),
        ("hf", PositionTable::Transformers),
    ] {
        network = network.with_positions(positions);
        let mut layers = Vec::new();
        let tokens =
            network.forward_observed(&batch(prepared.iter().map(Tensor::shallow_clone)), |x| {
                layers.push(x.select(1, 0)); // [B, D]
            });
        for (i, image) in prepared.iter().enumerate() {
            let at = |what: &str| format!("expected.{name}.{i}.{what}");
            let class = tokens.get(i as i64).get(0);
            for what in ["cls".to_string(), format!("cls_{rule}")] {
                if case.has(&at(&what)) {
                    check_first(case, &at(&what), &class);
                }
                if case.has(&at(&format!("{what}_mean_std"))) {
                    check(case, &at(&format!("{what}_mean_std")), &mean_std(&class));
                }
            }
            if rule == "hf" {
                depths(case, &at("layers"), &layers, i as i64);
            }
            if case.has(&at("patch_mean")) {
                let patches = tokens.get(i as i64);
                let patches = patches.narrow(0, 1, patches.size()[0] - 1);
                let mean = patches.mean_dim(Some([0i64].as_slice()), false, Kind::Float);
                check(case, &at("patch_mean"), &mean);
            }
            for rest in case.names_below(&at("crop")) {
                let Some(size) = rest.strip_suffix(&format!(".cls_{rule}")) else {
                    continue;
                };
                let (rows, columns) = size.split_once('x').expect("rows x columns");
                let side = |n: &str| n.parse::<i64>().expect("pixels");
                let crop = image
                    .narrow(1, 0, side(rows))
                    .narrow(2, 0, side(columns))
                    .unsqueeze(0);
                let class = network.forward(&crop).squeeze_dim(0);
                check(case, &at(&format!("crop{rest}")), &class);
            }
        }
        for (i, picture) in pictures(case, "picture_").iter().enumerate() {
            for (what, resize) in [
                ("cls_clean", DinoResize::Clean),
                ("cls_tf1", DinoResize::Tf1),
            ] {
                let at = format!("expected.{name}.{i}.{what}");
                if case.has(&at) {
                    let image = resize.prepare(picture, dinov2::SIDE, PILLOW).unsqueeze(0);
                    check(case, &at, &network.forward(&image).squeeze_dim(0));
                }
            }
        }
    }
}

/// The recorded ones of the class tokens `[B, D]` before and behind every block.
fn depths(case: &mut Case, start: &str, layers: &[Tensor], picture: i64) {
    let name = format!("{start}_cls");
    if !case.has(&name) {
        return;
    }
    let expected = case.input(&name).size();
    let recorded = expected[0] as usize;
    let blocks = layers.len() - 1;
    // Either all, or evenly spaced ones up to the last.
    let chosen: Vec<usize> = match recorded == layers.len() {
        true => (0..=blocks).collect(),
        false => (1..=recorded).map(|i| i * blocks / recorded).collect(),
    };
    let rows = chosen.iter().map(|&layer| layers[layer].get(picture));
    let rows = Tensor::stack(&rows.collect::<Vec<_>>(), 0);
    check(case, &name, &rows.narrow(1, 0, expected[1]));
    let moments = format!("{start}_mean_std");
    if case.has(&moments) {
        check(case, &moments, &mean_std(&rows).tr());
    }
}

fn clip_network(case: &mut Case, name: &str, network: &Value) {
    let state = openai_names(&state(case, name)).unwrap_or_else(|e| panic!("{e}"));
    let path = Path::new(name);
    let config = &network["config"];
    let activation = match config["vision"]["hidden_act"].as_str() {
        Some("quick_gelu") => ClipActivation::QuickGelu,
        Some("gelu") => ClipActivation::Gelu,
        other => panic!("activation {other:?}"),
    };
    let mut shape =
        ClipConfig::infer(&state, path, Some(activation)).unwrap_or_else(|e| panic!("{e}"));
    let heads = |tower: &str| config[tower]["num_attention_heads"].as_i64();
    shape.vision.heads = heads("vision").expect("heads");
    if let Some(text) = &mut shape.text {
        text.heads = heads("text").expect("heads");
    }
    let network = load(&state, path, Device::Cpu, clip::known_and_ignored, |p| {
        Clip::new(p, &shape)
    })
    .unwrap_or_else(|e| panic!("{e}"))
    .network;
    let expected = |what: &str| format!("expected.{name}.{what}");
    let side = shape.vision.picture as u32;
    if name == "clip_336" {
        let originals = pictures(case, "picture_");
        let images = originals
            .iter()
            .map(|p| ClipCrop::SquareFirst.prepare(p, side, PILLOW));
        let embedding = network.images(&batch(images)).embedding;
        let unit = &embedding / embedding.norm_scalaropt_dim(2.0, [1], true);
        check(case, "expected.cmmd.embeds", &unit);
        return;
    }
    let images = match case.meaning(&expected("pooled")).contains("HF crop") {
        true => pictures(case, "picture_")
            .iter()
            .map(|p| ClipCrop::Transformers.prepare(p, side, PILLOW))
            .collect::<Vec<_>>(),
        false => pictures(case, "clip_")
            .iter()
            .map(|p| ClipCrop::Openai.prepare(p, side, PILLOW))
            .collect(),
    };
    let images = batch(images);
    let mut layers = Vec::new();
    let features = tch::no_grad(|| {
        network
            .vision()
            .forward_observed(&images, |x| layers.push(x.select(1, 0)))
    });
    let embedding = features.embedding; // [B, E]
    if !case.has(&expected("pooled")) {
        for i in 0..images.size()[0] {
            let own = embedding.get(i);
            check_first(case, &expected(&format!("{i}.image_embeds")), &own);
            let norm = own.to_kind(Kind::Double).norm().double_value(&[]);
            check_value(case, &expected(&format!("{i}.norm")), norm);
        }
        let pair = cosines(&embedding.narrow(0, 0, 1), &embedding.narrow(0, 1, 1));
        check(
            case,
            &expected("cosine"),
            &pair.unwrap_or_else(|e| panic!("{e}")),
        );
        return;
    }
    check(case, &expected("pooled"), &features.pooled);
    check(case, &expected("layers_cls"), &Tensor::stack(&layers, 1));
    check(case, &expected("image_embeds"), &embedding);
    let tokens = case.input("input.clip.token_ids");
    let texts = network.texts(&tokens).expect("a text tower");
    check(case, &expected("text_embeds"), &texts);
    let scale = network.logit_scale().expect("a text tower");
    check_value(case, &expected("logit_scale"), scale);
    let pictures = embedding.size()[0];
    let columns: Vec<Tensor> = (0..pictures)
        .map(|i| {
            let image = embedding.narrow(0, i, 1).expand_as(&texts);
            cosines(&image, &texts).unwrap_or_else(|e| panic!("{e}"))
        })
        .collect();
    let cosine = Tensor::stack(&columns, 1); // [captions, pictures]
    check(case, &expected("cosine"), &cosine);
    let score = scaled(&cosine, scale);
    check(case, &expected("score"), &score);
    let probability = score.softmax(1, Kind::Double);
    check(case, &expected("probability"), &probability);
}

fn lpips(case: &mut Case) {
    let mut state = StateDict::default();
    for (name, entry) in self::state(case, "vgg16").iter() {
        // net.slice<k>.<n>.* is features.<n>.* in torchvision's file.
        let rest = name.splitn(3, '.').last().expect("three parts");
        state.insert(format!("features.{rest}"), entry.clone());
    }
    for i in 0..5 {
        let head = case
            .input(&format!("input.lpips.lin{i}"))
            .view([1, -1, 1, 1]);
        let name = format!("lin{i}.model.1.weight");
        let entry = vqdiffusion::checkpoint::Entry::in_memory(name.as_str(), &head);
        state.insert(name, entry.expect("f32"));
    }
    let none = |_: &str| None;
    let network = load(&state, Path::new("formula"), Device::Cpu, none, Lpips::new)
        .unwrap_or_else(|e| panic!("{e}"))
        .network;
    for i in 0.. {
        let side = |side: &str| picture(case, &format!("pair_{i}_{side}.png"));
        let (Some(a), Some(b)) = (side("a"), side("b")) else {
            break;
        };
        let [x, y] = [&a, &b].map(|p| symmetric(p).unsqueeze(0));
        let parts = tch::no_grad(|| network.parts(&x, &y)).squeeze_dim(0);
        let name = format!("expected.lpips.{i}");
        check(case, &format!("{name}.per_layer"), &parts);
        let value =
            |x: &Tensor, y: &Tensor| tch::no_grad(|| network.forward(x, y)).double_value(&[0]);
        check_value(case, &name, value(&x, &y));
        let [u, v] = [&a, &b].map(|p| (p.to_tensor() / 255.0).unsqueeze(0));
        let normalised = value(&(&u * 2.0 - 1.0), &(&v * 2.0 - 1.0));
        check_value(case, &format!("{name}.normalize_true"), normalised);
        check_value(case, &format!("{name}.unscaled_01"), value(&u, &v));
        if i == 0 {
            let x = x.set_requires_grad(true);
            network.forward(&x, &y).sum(Kind::Float).backward();
            let gradient = x.grad().flatten(0, -1);
            let at = Tensor::from_slice(&integers(&case.input("input.lpips.grad_index")));
            check(case, "expected.lpips.grad", &gradient.index_select(0, &at));
            check(case, "expected.lpips.grad_mean_std", &mean_std(&gradient));
            let norm = gradient.to_kind(Kind::Double).norm().double_value(&[]);
            check_value(case, "expected.lpips.grad_norm", norm);
        }
    }
}
