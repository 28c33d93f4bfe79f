//! A model's pictures of what folders of real pictures are called.

use std::error::Error;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;

use tch::Device;

use super::subject::{Made, Model, Origin, Split, SubjectArgs};
use crate::cli::progress::Progress;
use crate::cli::sample::pictures::file_name;
use crate::cli::sample::repeat::chunks;
use crate::cli::signals::stop_on_signals;
use crate::codec::image_codec::to_bytes;
use crate::evaluate::labelled::{Label, LabelledFolder, LIST};
use crate::files;
use crate::picture::{write_png, Picture};
use crate::pipeline::{Pipeline, Request};

/// Makes the pictures of `folders` at their places, and writes those of each folder to one
/// of its name under the output folder, with a list as the folder's own. A signal ends the
/// work after the pictures being made.
pub fn make(
    args: &SubjectArgs,
    folders: Vec<(LabelledFolder, Vec<usize>)>,
    model: Model,
) -> Result<Made, Box<dyn Error>> {
    let pictures: usize = folders.iter().map(|(_, places)| places.len()).sum();
    let mut maker = Maker::new(args, model, pictures)?;
    let start = Instant::now();
    let mut splits = Vec::new();
    let mut first = 0;
    for (folder, places) in folders {
        let requests = first..first + places.len();
        first = requests.end;
        splits.push(maker.split(folder, places, requests)?);
    }
    maker.progress.finish();
    let made: usize = splits.iter().map(|split| split.pictures.len()).sum();
    if made == 0 {
        return Err("stopped by a signal before the first picture".into());
    }
    Ok(Made {
        stopped: made < pictures,
        splits,
        origin: Origin::Model {
            checkpoint: maker.model.path,
            model_sha256: maker.pipeline.fingerprint().to_string(),
            options: maker.model.plan.options,
            seed: args.seed,
            seconds_per_picture: start.elapsed().as_secs_f64() / made as f64,
        },
    })
}

struct Maker {
    model: Model,
    pipeline: Pipeline,
    out: PathBuf,
    /// Pictures made together.
    batch: usize,
    stop: Arc<AtomicBool>,
    progress: Progress,
}

impl Maker {
    fn new(args: &SubjectArgs, model: Model, pictures: usize) -> Result<Self, Box<dyn Error>> {
        let pipeline = Pipeline::load(&model.checkpoint, model.device, model.plan.options.dtype)?;
        Ok(Maker {
            pipeline,
            out: args.out.clone(),
            batch: match model.device {
                // They are made one by one there, and a signal waits for the batch.
                Device::Cpu => 1,
                _ => args.batch_size as usize,
            },
            model,
            stop: stop_on_signals()?,
            progress: Progress::counting("pictures", pictures as u64, "sampling", false),
        })
    }

    fn split(
        &mut self,
        folder: LabelledFolder,
        places: Vec<usize>,
        requests: std::ops::Range<usize>,
    ) -> Result<Split, Box<dyn Error>> {
        let target = self.out.join(&folder.name);
        std::fs::create_dir_all(&target).map_err(|e| format!("{}: {e}", target.display()))?;
        let mut split = Split {
            asked: places.len(),
            folder,
            places: Vec::new(),
            pictures: Vec::new(),
            files: Vec::new(),
        };
        let mut list = Vec::new();
        let requests = &self.model.plan.requests[requests];
        for (requests, places) in requests.chunks(self.batch).zip(places.chunks(self.batch)) {
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
            let pictures = self.pictures(requests)?;
            for ((picture, request), &place) in pictures.into_iter().zip(requests).zip(places) {
                let name = file_name(request);
                let file = target.join(&name);
                let texts = chunks(&self.model.plan, request, self.pipeline.fingerprint())?;
                write_png(&file, &picture, &texts)?;
                let asked = &split.folder.labels[place];
                let label = Label {
                    file: name.into(),
                    captions: asked.captions.iter().take(1).cloned().collect(),
                    ..asked.clone()
                };
                serde_json::to_writer(&mut list, &label)?;
                list.push(b'\n');
                split.places.push(place);
                split.pictures.push(picture);
                split.files.push(file);
                self.progress.step(&split.folder.name);
            }
        }
        files::write(&target.join(LIST), list)?;
        Ok(split)
    }

    fn pictures(&self, requests: &[Request]) -> Result<Vec<Picture>, Box<dyn Error>> {
        let sampler = &self.model.sampler;
        let tokens = self
            .pipeline
            .sample_tokens(sampler, requests, &mut |_, _| ControlFlow::Continue(()))?; // [B, L]
        let rounding = self.model.plan.options.rounding;
        let bytes = to_bytes(&self.pipeline.decode(&tokens), rounding); // [B, 3, H, W]
        let picture = |i: usize| Picture::from_tensor(&bytes.get(i as i64));
        Ok((0..requests.len()).map(picture).collect())
    }
}
