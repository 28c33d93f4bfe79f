//! A model written for another program: here for the original's code (`.pth`); a name
//! that ends in `.safetensors` gives the own layout.
//!
//! ```sh
//! cargo run --release --example convert -- checkpoints/emoji.safetensors emoji.pth
//! ```

use std::path::Path;

use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::pipeline::convert::{Conversion, ConvertError, Target};

fn main() -> Result<(), ConvertError> {
    let mut arguments = std::env::args().skip(1);
    let input = arguments.next();
    let input = input.unwrap_or("checkpoints/emoji.safetensors".into());
    let output = arguments.next().unwrap_or("emoji.pth".into());

    let checkpoint = Checkpoint::open(Path::new(&input), &OpenOptions::default())?;
    let conversion = Conversion::to(Target::of(Path::new(&output), None)?);
    let written = conversion.write(checkpoint, Path::new(&output))?;
    println!("{}", written.report);
    for what in written.left_out {
        println!("left out: {what}");
    }
    println!("wrote {output}");
    Ok(())
}
