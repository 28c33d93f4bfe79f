//! The front door: a user's program in a few lines, equal to the command line to the byte.

use std::ops::ControlFlow;
use std::path::Path;

use tempfile::TempDir;
use vqdiffusion::checkpoint::OpenOptions;
use vqdiffusion::diffusion::truncation::Truncation;
use vqdiffusion::pipeline::{OptionsError, RecordError};
use vqdiffusion::{
    DeviceChoice, Edit, Error, Margins, PictureOptions, Pipeline, Precision, Record, Subject,
};

use crate::running::{fixture, native_model, s, succeed};

fn open(path: &Path) -> Pipeline {
    let builder = Pipeline::builder().threads(1).precision(Precision::F32);
    let cpu = "cpu".parse::<DeviceChoice>().expect("a device");
    builder.device(cpu).open(path).expect("a model")
}

/// The bytes of the one picture that `vqdiffusion sample` makes of `model`.
fn sampled(folder: &Path, model: &Path, options: &[&str]) -> Vec<u8> {
    let fixed = ["sample", "--checkpoint", s(model), "--dtype", "f32"];
    let out = ["--device", "cpu", "--out", "cli", "--overwrite"];
    let said = succeed(folder, &[&fixed[..], &out, options].concat());
    std::fs::read(folder.join(said.trim())).expect("a picture")
}

/// The bytes of the PNG of `options`.
fn made<S: Clone + Into<Subject>>(
    folder: &Path,
    pipeline: &Pipeline,
    subject: S,
    options: &PictureOptions,
) -> Vec<u8> {
    let made = pipeline.pictures(&[subject], options).expect("a picture");
    let file = folder.join("library.png");
    made[0].write_png(&file).expect("a file");
    std::fs::read(file).expect("a picture")
}

#[test]
fn three_lines_make_the_picture_of_the_command_line() {
    let folder = TempDir::new().expect("a folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/emoji.safetensors");
    let program = || -> Result<(), Error> {
        let pipeline = Pipeline::open(&model)?;
        let made = pipeline.pictures(&["red heart"], &pipeline.usual().seed(3).steps(4))?;
        Ok(made[0].write_png(folder.path().join("heart.png"))?)
    };
    program().expect("a picture");
    let args = [
        "sample",
        "--checkpoint",
        s(&model),
        "--seed",
        "3",
        "red heart",
    ];
    let said = succeed(folder.path(), &[&args[..], &["--steps", "4"]].concat());
    let read = |file: &str| std::fs::read(folder.path().join(file)).expect("a picture");
    assert!(read("heart.png") == read(said.trim()));
}

#[test]
fn every_option_is_that_of_the_command_line() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let pipeline = open(&model);
    let usual = pipeline.usual().steps(5);
    let prompt = "a bird";
    let steps = ["--steps", "5", prompt];
    let same = |options: &PictureOptions, flags: &[&str]| {
        let expected = sampled(folder, &model, &[&steps[..], flags].concat());
        assert!(
            made(folder, &pipeline, prompt, options) == expected,
            "{flags:?}"
        );
    };
    same(&usual, &[]);
    same(
        &usual.clone().seed(9).guidance(2.5),
        &["--seed", "9", "--guidance", "2.5"],
    );
    let options = usual.clone().truncation(Truncation::TopP(1.0));
    same(&options, &["--truncation", "1"]);
    let options = usual.clone().truncation(Truncation::TopK(3));
    same(&options, &["--top-k", "3"]);
    let options = usual.clone().guidance(3.0).negative_prompt("rain");
    same(&options, &["--guidance", "3", "--negative-prompt", "rain"]);
}

#[test]
fn edits_are_those_of_the_command_line_and_repeat() {
    let (folder, model) = native_model();
    let folder = folder.path();
    let pipeline = open(&model);
    let photo = image::RgbImage::from_fn(90, 70, |x, y| {
        image::Rgb([(2 * x) as u8, (3 * y) as u8, ((x * y) % 200) as u8])
    });
    let file = |name: &str| folder.join(name);
    photo.save(file("photo.png")).expect("a picture");
    let mask = image::GrayImage::from_fn(30, 20, |x, _| image::Luma([255 * u8::from(x > 14)]));
    mask.save(file("mask.png")).expect("a picture");
    let usual = pipeline.usual().steps(6).seed(4);
    let of = || Edit::of(file("photo.png")).expect("a picture");
    let margins = Margins {
        left: 16,
        ..Margins::default()
    };
    let inpaint = of().mask(file("mask.png")).expect("a mask");
    for (edit, flags, mask) in [
        (of().strength(0.5), &["--strength", "0.5"][..], None),
        (inpaint, &["--mask", "mask.png"], Some("mask.png")),
        (of().outpaint(margins), &["--outpaint", "left=16"], None),
    ] {
        let start = ["a cat", "--steps", "6", "--seed", "4", "--init-image"];
        let expected = sampled(
            folder,
            &model,
            &[&start[..], &["photo.png"], flags].concat(),
        );
        let options = usual.clone().edit(edit);
        assert!(
            made(folder, &pipeline, "a cat", &options) == expected,
            "{flags:?}"
        );

        let record = Record::read(file("library.png")).expect("a record");
        let (image, mask) = (file("photo.png"), mask.map(file));
        let again = record.edit(Some(&image), mask.as_deref()).expect("an edit");
        let again = pipeline.repeat(&record, again).expect("a picture");
        again.write_png(file("again.png")).expect("a file");
        assert!(std::fs::read(file("again.png")).expect("a picture") == expected);
    }
}

#[test]
fn a_run_is_followed_and_stopped_between_steps() {
    let (_folder, model) = native_model();
    let pipeline = open(&model);
    let options = pipeline.usual().steps(7).count(2);
    let mask = pipeline.config().denoiser.mask_token();
    let mut before: Option<Vec<i64>> = None;
    let mut seen = Vec::new();
    let whole = pipeline
        .pictures_observed(&["a bird"], &options, &mut |step| {
            let pictures = step.pictures;
            let step = step.progress;
            assert_eq!(step.steps, 7);
            seen.push((pictures, step.done));
            let tokens = Vec::<i64>::try_from(step.tokens.get(0)).expect("tokens");
            let changed = Vec::<bool>::try_from(step.changed().get(0)).expect("flags");
            if let Some(before) = before.take().filter(|_| step.done > 1) {
                let pairs = tokens.iter().zip(&before);
                assert_eq!(changed, pairs.map(|(a, b)| a != b).collect::<Vec<_>>());
            }
            if step.done == 7 {
                assert!(!tokens.contains(&mask));
            }
            before = Some(tokens);
            ControlFlow::Continue(())
        })
        .expect("pictures");
    let all: Vec<_> = [0..1, 1..2]
        .into_iter()
        .flat_map(|picture| (1..=7).map(move |done| (picture.clone(), done)))
        .collect();
    assert_eq!(seen, all);
    assert_eq!(before.expect("steps"), whole[1].tokens);

    // Stopped in the second picture, after its third step: the first is whole.
    let mut steps = 0;
    let stopped = pipeline
        .pictures_observed(&["a bird"], &options, &mut |_| {
            steps += 1;
            match steps {
                10 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        })
        .expect("pictures");
    assert_eq!((steps, stopped.len()), (10, 1));
    assert_eq!(stopped[0].picture, whole[0].picture);
}

#[test]
fn options_that_do_not_fit_are_refused() {
    let (_folder, model) = native_model();
    let text = open(&model);
    let case = fixture("uncond_tiny");
    let parts = OpenOptions {
        config: Some(case.join("config.yaml")),
        ..OpenOptions::default()
    };
    let builder = Pipeline::builder().parts(parts).precision(Precision::F32);
    let unconditional = builder.open(case.join("last.pth")).expect("a model");
    let refused = |pipeline: &Pipeline, options: &PictureOptions| match pipeline.maker(options) {
        Err(Error::Options(error)) => error,
        Err(error) => panic!("{error}"),
        Ok(_) => panic!("a maker"),
    };
    let without = unconditional.usual();
    assert_eq!(
        refused(&unconditional, &without.clone().guidance(2.0)),
        OptionsError::Unconditional { guidance: 2.0 }
    );
    assert_eq!(
        refused(&unconditional, &without.negative_prompt("rain")),
        OptionsError::NegativePrompt
    );
    assert_eq!(
        refused(&text, &text.usual().guidance(1.0).negative_prompt("rain")),
        OptionsError::NothingToLeadFrom { guidance: 1.0 }
    );
    let error = refused(&text, &text.usual().steps(0)).to_string();
    assert!(error.contains("steps is 0"), "{error}");
    let error = text.pictures(&["a", "b"], &text.usual().seed(u64::MAX - 1));
    assert!(matches!(
        error,
        Err(Error::Options(OptionsError::Seed { .. }))
    ));
    let error = text.pictures(&[Subject::Class(3)], &text.usual());
    assert!(matches!(error, Err(Error::Condition(_))));
    let error = Pipeline::open("no-such-model.safetensors").err();
    let error = error.expect("an error").to_string();
    assert!(error.contains("no-such-model.safetensors"), "{error}");
}

#[test]
fn a_record_is_repeated_by_the_same_model_alone() {
    let (folder, model) = native_model();
    let pipeline = open(&model);
    let made = pipeline.pictures(&["a bird"], &pipeline.usual().steps(3));
    let made = made.expect("a picture").remove(0);
    let other = Record {
        model_sha256: "0".repeat(64),
        ..made.record.clone()
    };
    let error = pipeline.repeat(&other, None).expect_err("an error");
    assert!(
        matches!(error, Error::Record(RecordError::OtherModel { .. })),
        "{error}"
    );
    let mut other = made.record.clone();
    other.settings.dtype = Precision::Bf16;
    let error = pipeline.repeat(&other, None).expect_err("an error");
    assert!(
        matches!(error, Error::Record(RecordError::OtherPrecision { .. })),
        "{error}"
    );
    let file = folder.path().join("foreign.png");
    vqdiffusion::picture::write_png(&file, &made.picture, &[]).expect("a file");
    let error = Record::read(&file).expect_err("an error");
    assert!(matches!(error, RecordError::Missing { .. }), "{error}");
}

#[test]
fn errors_go_through_threads_and_boxes() {
    fn check<E: std::error::Error + Send + Sync + 'static>() {}
    check::<Error>();
    check::<vqdiffusion::pipeline::convert::ConvertError>();
    check::<vqdiffusion::evaluate::EvaluateError>();
}

#[test]
fn tokens_come_back_as_the_picture_they_are_of() {
    let (_folder, model) = native_model();
    let pipeline = open(&model);
    let [height, width] = pipeline.config().picture_size().map(|side| side as u32);
    let picture = vqdiffusion::Picture {
        width: 2 * width,
        height: 2 * height,
        rgb: (0..12 * width * height).map(|i| (i % 251) as u8).collect(),
    };
    let tokens = pipeline.tokens(&picture);
    let small = pipeline.encode(&picture.cover(width, height));
    assert_eq!(
        tokens,
        Vec::<i64>::try_from(small.view([-1])).expect("tokens")
    );
    let (rows, codes) = (
        pipeline.config().denoiser.tokens(),
        pipeline.config().denoiser.codes,
    );
    assert_eq!(tokens.len() as i64, rows);
    assert!(tokens.iter().all(|token| (0..codes).contains(token)));
}

/// A decoder in bf16 gives nearly the same picture, which says so and is repeated.
#[test]
fn pictures_are_decoded_in_the_number_format_asked_for() {
    let folder = TempDir::new().expect("a folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("checkpoints/emoji.safetensors");
    let pipeline = open(&model);
    let usual = pipeline.usual().seed(3).steps(4);
    let exact = &pipeline.pictures(&["red heart"], &usual).expect("pictures")[0];
    let options = usual.decoding(Precision::Bf16);
    let coarse = &pipeline
        .pictures(&["red heart"], &options)
        .expect("pictures")[0];
    assert_eq!(exact.tokens, coarse.tokens);
    assert_ne!(exact.picture, coarse.picture);
    let psnr = vqdiffusion::picture::psnr(&exact.picture, &coarse.picture);
    assert!(psnr > 35.0, "{psnr} dB");

    let file = folder.path().join("coarse.png");
    coarse.write_png(&file).expect("a file");
    let record = Record::read(&file).expect("a record");
    let again = pipeline.repeat(&record, None).expect("a picture");
    assert_eq!(again.picture, coarse.picture);

    let asked = [
        "--seed",
        "3",
        "--steps",
        "4",
        "--decode-dtype",
        "bf16",
        "red heart",
    ];
    let bytes = sampled(folder.path(), &model, &asked);
    assert_eq!(bytes, std::fs::read(&file).expect("a picture"));
}
