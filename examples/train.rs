//! The bundled model trained further on a folder of pictures, each with its words in a
//! `.txt` beside it, and a picture of the model that comes out.
//!
//! ```sh
//! cargo run --release --example train -- my_pictures runs/mine 400 "one of the words"
//! ```

use std::error::Error;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use vqdiffusion::experiment::Experiment;
use vqdiffusion::ranks::Ranks;
use vqdiffusion::torch::runtime;
use vqdiffusion::train::diffusion::session::Session;
use vqdiffusion::train::engine::{Event, Resume};
use vqdiffusion::{DeviceChoice, Pipeline};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [pictures, folder, steps, prompt] = arguments.as_slice() else {
        return Err("expected FOLDER-OF-PICTURES RUN-FOLDER STEPS PROMPT".into());
    };

    // Every option is a key of the file; here some are replaced.
    let experiment = Experiment::read(
        Path::new("configs/emoji_finetune.yaml"),
        &[
            format!("data.train={pictures}"),
            format!("train.folder={folder}"),
            format!("train.steps={steps}"),
            "train.preview.every=0".into(),
        ],
    )?;
    runtime::start();
    let device = DeviceChoice::best().available()?;
    let Experiment {
        model,
        weights,
        data,
        train,
    } = &experiment;
    let model = model.as_ref();
    let ranks = Ranks::alone();
    let session = Session::open(model, weights, data, train, &Resume::No, device, ranks)?;
    println!("{}", session.plan());
    let mut run = session.load()?.run;
    let stop = AtomicBool::new(false); // set by another thread, ends with a checkpoint
    run.train(&stop, &mut |event| match event {
        Event::Step {
            line: Some(line), ..
        } => println!("loss {:.4}", line.loss.unwrap_or(f64::NAN)),
        Event::Saved(saved) => println!("wrote {}", saved.path.display()),
        _ => {}
    })?;

    let folder = Path::new(folder);
    let pipeline = Pipeline::open(folder.join("last/model.safetensors"))?;
    let made = pipeline.pictures(&[prompt.as_str()], &pipeline.usual().steps(20))?;
    made[0].write_png(folder.join("sample.png"))?;
    println!("wrote {}", folder.join("sample.png").display());
    Ok(())
}
