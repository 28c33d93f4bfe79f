//! The image tokens of a picture, which training and sampling work on.
//!
//! ```sh
//! cargo run --release --example tokens -- docs/pictures/face.png
//! ```

use vqdiffusion::picture::read_picture;
use vqdiffusion::{Error, Pipeline};

fn main() -> Result<(), Error> {
    let file = std::env::args().nth(1);
    let file = file.unwrap_or("docs/pictures/face.png".into());

    let pipeline = Pipeline::open("checkpoints/emoji.safetensors")?;
    let tokens = pipeline.tokens(&read_picture(file.as_ref())?);
    let [_, columns] = pipeline.config().denoiser.grid;
    for row in tokens.chunks(columns as usize) {
        let row: Vec<String> = row.iter().map(|token| format!("{token:4}")).collect();
        println!("{}", row.join(""));
    }
    Ok(())
}
