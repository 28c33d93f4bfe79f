//! Text to a picture.
//!
//! ```sh
//! cargo run --release --example sample -- "red heart, noto style" heart.png
//! ```

use std::ops::ControlFlow;

use vqdiffusion::{Error, Pipeline};

fn main() -> Result<(), Error> {
    let mut arguments = std::env::args().skip(1);
    let prompt = arguments.next().unwrap_or("red heart, noto style".into());
    let file = arguments.next().unwrap_or("heart.png".into());

    let pipeline = Pipeline::open("checkpoints/emoji.safetensors")?;
    let options = pipeline.usual().seed(3).steps(20);
    let made = pipeline.pictures_observed(&[prompt], &options, &mut |step| {
        println!("step {} of {}", step.progress.done, step.progress.steps);
        ControlFlow::Continue(()) // Break(()) would stop here
    })?;
    made[0].write_png(&file)?;
    println!("wrote {file}");
    Ok(())
}
