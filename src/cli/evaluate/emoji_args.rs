//! Arguments of the measures that know what each picture should show: a model's answers
//! to the captions of real pictures, or pictures that lie in folders.

use std::error::Error;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tch::Device;

use crate::checkpoint::Checkpoint;
use crate::cli::arguments::whole;
use crate::cli::compute::ComputeArgs;
use crate::cli::model_source::ModelSource;
use crate::cli::out_folder;
use crate::cli::progress::{say, ProgressDisplay};
use crate::cli::sampler_args::SamplerArgs;
use crate::cli::signals::{stop_on_signals, STOPPED};
use crate::cli::CliResult;
use crate::evaluate::emoji::asked::{Ask, Asked, LabelledSet};
use crate::evaluate::emoji::gallery::Gallery;
use crate::evaluate::emoji::labelled::LabelledFolder;
use crate::evaluate::protocol::{Protocol, Provenance};
use crate::evaluate::report::{Report, SetReport, REPORT};
use crate::evaluate::EvaluateError;
use crate::pipeline::{PictureOptions, Pipeline};
use crate::torch::device::Precision;

#[derive(Args)]
pub struct EmojiArgs {
    /// Model to measure: an official .pth (whole or split), our .safetensors, a diffusers
    /// folder, or its name on the Hugging Face Hub.
    #[arg(
        long,
        value_name = "PATH",
        required_unless_present = "pictures",
        requires = "prompts"
    )]
    checkpoint: Option<PathBuf>,

    #[command(flatten)]
    model: ModelSource,

    /// Folders of real pictures to ask for, each by the first of its captions; several are
    /// scored one by one.
    #[arg(long, value_name = "FOLDER", num_args = 1..)]
    prompts: Vec<PathBuf>,

    /// Instead of a model: folders of made pictures whose captions.jsonl says what each
    /// should show.
    #[arg(long, value_name = "FOLDER", num_args = 1.., conflicts_with_all = ["checkpoint", "prompts",
        "config", "weights", "mapping", "codec", "text_encoder", "steps", "guidance", "truncation",
        "times", "order", "guidance_span", "local_steps", "top_k", "purity", "tokens_per_step", "compat", "dtype", "decode_dtype", "seed",
        "batch_size", "device"])]
    pictures: Vec<PathBuf>,

    /// Folders of real pictures to look among: all there are, those asked for included.
    /// Lines of captions.jsonl have `file`, `captions`, `concept`, `style`, maybe `colour`.
    #[arg(long, value_name = "FOLDER", num_args = 1.., required = true)]
    gallery: Vec<PathBuf>,

    /// Measure this many of each folder, a fixed draw: always the same ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,

    #[command(flatten)]
    sampler: SamplerArgs,

    /// The picture of line i of a folder's list, counted from 0, has the seed SEED + i; the
    /// j-th further one of a list of N lines SEED + i + j N.
    #[arg(long, default_value_t = 0, value_parser = whole::<u64>(0..=u64::MAX))]
    seed: u64,

    /// Pictures made and decoded together on a GPU.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    batch_size: u32,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Folder for report.json, a sheet of each folder measured, and the pictures made; made
    /// if missing.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,

    /// Replace a report that is there.
    #[arg(long)]
    overwrite: bool,
}

/// What is asked for of the labels, and what is found of the tokens.
#[derive(Clone, Copy)]
pub struct Asking {
    pub ask: Ask,
    /// Pictures of each label, at least 1.
    pub each: usize,
    /// Draws of the bound for each quarter of the times, where it is wanted.
    pub bound: Option<usize>,
}

impl Default for Asking {
    fn default() -> Self {
        Asking {
            ask: Ask::Caption,
            each: 1,
            bound: None,
        }
    }
}

/// What is measured, opened and checked, before anything is made.
pub struct Measured {
    pub asked: Asked,
    pub gallery: Vec<LabelledFolder>,
    model: Option<Model>,
    bound: Option<usize>,
}

/// A model and how it will be asked.
struct Model {
    checkpoint: Checkpoint,
    path: PathBuf,
    options: PictureOptions,
    dtype: Precision,
    device: Device,
}

impl EmojiArgs {
    /// Opens everything but pictures and weights; prepares the output folder.
    pub fn open(&self, asking: Asking) -> Result<Measured, Box<dyn Error>> {
        let device = self.compute.set_up()?;
        let open = |folder: &PathBuf| LabelledFolder::open(folder);
        let gallery = self.gallery.iter().map(open).collect::<Result<_, _>>()?;
        let folders = match self.checkpoint {
            Some(_) => &self.prompts,
            None => &self.pictures,
        };
        let limit = self.limit.map(|n| n as usize);
        let asked = Asked::open(folders, limit, asking.ask, asking.each)?;
        let model = self.checkpoint.as_deref();
        let model = model
            .map(|path| self.open_model(path, device, &asked))
            .transpose()?;
        let mut results = vec![self.out.join(REPORT)];
        for name in asked.names() {
            results.push(self.sheet(name));
            results.extend(model.is_some().then(|| self.out.join(name)));
        }
        out_folder::prepare(&self.out, &results, self.overwrite)?;
        Ok(Measured {
            asked,
            gallery,
            model,
            bound: asking.bound,
        })
    }

    fn open_model(
        &self,
        path: &Path,
        device: Device,
        asked: &Asked,
    ) -> Result<Model, Box<dyn Error>> {
        let checkpoint = self.model.open(path)?;
        self.compute.limit_threads(&checkpoint.config);
        if checkpoint.config.text.is_none() {
            let path = path.display();
            return Err(format!("{path}: the model reads no text, expected one that does").into());
        }
        asked.requests(self.seed).map_err(|error| match error {
            EvaluateError::Seed { .. } => format!("--{error}").into(),
            error => Box::<dyn Error>::from(error),
        })?;
        let options = self.sampler.options(&checkpoint.config);
        let options = options.batch_size(self.batch_size as usize);
        options.plan(&checkpoint.config)?;
        Ok(Model {
            checkpoint,
            path: path.to_path_buf(),
            options,
            dtype: self.sampler.dtype(device),
            device,
        })
    }

    /// Where the sheet of the folder called `name` goes.
    pub fn sheet(&self, name: &str) -> PathBuf {
        self.out.join(format!("{name}.png"))
    }

    /// Reads or makes the pictures. A signal ends the making; what was made till then is
    /// measured.
    pub fn pictures(
        &self,
        measured: Measured,
    ) -> Result<(Vec<LabelledSet>, Protocol), Box<dyn Error>> {
        match measured.model {
            Some(model) => self.make(measured.asked, model, measured.bound),
            None => {
                let provenance = Provenance::Pictures {
                    pictures: self.pictures.clone(),
                };
                Ok((measured.asked.read()?, self.protocol(provenance, false)))
            }
        }
    }

    fn make(
        &self,
        asked: Asked,
        model: Model,
        bound: Option<usize>,
    ) -> Result<(Vec<LabelledSet>, Protocol), Box<dyn Error>> {
        let pipeline = Pipeline::load(&model.checkpoint, model.device, model.dtype)?;
        let mut maker = pipeline.maker(&model.options)?;
        let stop = stop_on_signals()?;
        let pictures = asked.pictures();
        let mut progress =
            ProgressDisplay::counting("pictures", pictures as u64, "sampling", false);
        let (seed, out) = (self.seed, &self.out);
        let sets = asked.make(&mut maker, seed, bound, out, &stop, &mut |folder| {
            progress.step(folder);
        })?;
        progress.finish();
        let made: usize = sets.iter().map(|set| set.pictures.len()).sum();
        let seconds: f64 = sets.iter().map(|set| set.seconds).sum();
        if made == 0 {
            return Err("stopped by a signal before the first picture".into());
        }
        let provenance = Provenance::Model {
            checkpoint: model.path,
            model_sha256: pipeline.fingerprint().to_string(),
            options: maker.settings().clone(),
            network_calls: maker.calls().full,
            local_calls: maker.calls().local,
            seed: self.seed,
            seconds_per_picture: seconds / made as f64,
        };
        Ok((sets, self.protocol(provenance, made < pictures)))
    }

    fn protocol(&self, provenance: Provenance, stopped: bool) -> Protocol {
        Protocol {
            provenance,
            limit: self.limit,
            stopped,
        }
    }

    /// Writes the report of a `measure` over a gallery of so many pictures, prints where
    /// it is, and says so if a signal ended the work.
    pub fn finish<M: Serialize, S: Serialize>(
        &self,
        measure: M,
        protocol: &Protocol,
        gallery: &Gallery,
        splits: &[SetReport<S>],
        sets: &[LabelledSet],
    ) -> CliResult {
        let report = Report {
            measure,
            protocol,
            references: References {
                gallery: &self.gallery,
                gallery_pictures: gallery.labels.len(),
                gallery_sha256: gallery.sha256(),
            },
            splits,
        };
        let path = report.write(&self.out)?;
        writeln!(std::io::stdout(), "wrote {}", path.display())?;
        if !protocol.stopped {
            return Ok(ExitCode::SUCCESS);
        }
        let asked: usize = sets.iter().map(|set| set.asked).sum();
        let measured: usize = sets.iter().map(|set| set.pictures.len()).sum();
        say(format_args!(
            "stopped by a signal: {measured} of {asked} pictures were made and measured"
        ));
        Ok(ExitCode::from(STOPPED))
    }
}

/// What a report says of the measure.
#[derive(Serialize)]
pub struct NamedMeasure {
    pub measure: &'static str,
    /// What "nearest" means.
    pub distance: &'static str,
}

/// What a report says of the real pictures.
#[derive(Serialize)]
struct References<'a> {
    gallery: &'a [PathBuf],
    gallery_pictures: usize,
    /// Of what they show and of their pixels.
    gallery_sha256: String,
}
