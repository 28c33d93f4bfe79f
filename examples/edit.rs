//! A part of a picture drawn anew (inpainting): the lower half of one that the model made.
//!
//! ```sh
//! cargo run --release --example edit -- redrawn.png
//! ```

use std::path::Path;

use vqdiffusion::picture::write_png;
use vqdiffusion::{Edit, Error, Picture, Pipeline};

fn main() -> Result<(), Error> {
    let file = std::env::args().nth(1).unwrap_or("redrawn.png".into());
    let beside = |end: &str| Path::new(&file).with_extension(end);

    let pipeline = Pipeline::open("checkpoints/emoji.safetensors")?;
    let usual = pipeline.usual().steps(20);
    let made = pipeline.pictures(&["red heart, noto style"], &usual)?;
    made[0].write_png(beside("before.png"))?;
    write_png(&beside("mask.png"), &lower_half(64), &[])?;

    let edit = Edit::of(beside("before.png"))?.mask(beside("mask.png"))?;
    let options = usual.seed(1).edit(edit);
    let redrawn = pipeline.pictures(&["blue heart, noto style"], &options)?;
    redrawn[0].write_png(&file)?;
    println!("wrote {file}");
    Ok(())
}

/// White where to redraw: any size covers the picture's frame.
fn lower_half(side: u32) -> Picture {
    let row = |y: u32| std::iter::repeat_n(if y < side / 2 { 0 } else { 255 }, 3 * side as usize);
    Picture {
        width: side,
        height: side,
        rgb: (0..side).flat_map(row).collect(),
    }
}
