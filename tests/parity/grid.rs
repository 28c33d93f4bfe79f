//! A token grid smaller than the position table, as the original's 16 × 16 models
//! have it: positions are the first rows of the flattened table.

use std::path::Path;

use tch::{Device, Tensor};
use vqdiffusion::checkpoint::{Checkpoint, OpenOptions};
use vqdiffusion::pipeline::Pipeline;
use vqdiffusion::torch::device::Precision;

use crate::case::{close, Case};

#[test]
fn grid_smaller_than_the_position_table() -> Result<(), Box<dyn std::error::Error>> {
    let _no_grad = tch::no_grad_guard();
    let case = Case::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/text_tiny"));
    let folder = tempfile::tempdir()?;
    let yaml = std::fs::read_to_string(case.path.join("config.yaml"))?;
    let grid = "content_spatial_size:\n            - 8\n            - 8";
    assert!(yaml.contains(grid) && yaml.contains("content_seq_len: 64"));
    let smaller = yaml
        .replace(grid, "content_spatial_size: [4, 4]")
        .replace("content_seq_len: 64", "content_seq_len: 16");
    let config = folder.path().join("config.yaml");
    std::fs::write(&config, smaller)?;
    let mapping = "help_folder/statistics/taming_vqvae_2887.pt";
    let options = OpenOptions {
        config: Some(config),
        mapping: Some(case.path.join(mapping)),
        ..OpenOptions::default()
    };
    let checkpoint = Checkpoint::open(&case.path.join("last.pth"), &options)?;
    assert_eq!(checkpoint.config.denoiser.grid, [4, 4]);
    assert_eq!(checkpoint.config.denoiser.position_table, [8, 8]);
    let pipeline = Pipeline::load(&checkpoint, Device::Cpu, Precision::F32)?;

    let denoiser = pipeline.denoiser();
    let condition = denoiser.condition(&case.input("input.cond_emb"));
    let x_t = case.input("input.x_t").narrow(1, 0, 16);
    let mut embedded = None;
    let logits = denoiser.forward_observed(
        &x_t,
        &case.input("input.t"),
        &condition,
        None,
        |x: &Tensor| {
            embedded.get_or_insert_with(|| x.copy());
        },
    );
    assert_eq!(logits.size()[1], 16);
    let name = "expected.content_emb";
    let embedded = embedded.ok_or("no hidden state was shown")?;
    close(
        &embedded,
        &case.input(name).narrow(1, 0, 16),
        case.atol(name),
    )?;
    // Pictures are half as high and wide, with attention at the same levels.
    let picture = pipeline.decode(&x_t.clamp_max(checkpoint.config.denoiser.codes - 1));
    let [height, width] = checkpoint.config.picture_size();
    assert_eq!(picture.size()[1..], [3, height, width]);
    Ok(())
}
