//! The pictures that are measured: a model's answers to the captions of real pictures, or
//! pictures that lie in folders.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;
use tch::Device;

use super::make::make;
use crate::checkpoint::Checkpoint;
use crate::cli::compute::ComputeArgs;
use crate::cli::model_source::ModelSource;
use crate::cli::out_folder;
use crate::cli::sample::plan::Plan;
use crate::cli::sampler_args::{Options, SamplerArgs};
use crate::data::DataError;
use crate::diffusion::SamplingPlan;
use crate::evaluate::labelled::{Label, LabelledFolder};
use crate::picture::Picture;
use crate::pipeline::{Request, Subject};

#[derive(Args)]
pub struct SubjectArgs {
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
        "top_k", "purity", "tokens_per_step", "compat", "dtype", "seed", "batch_size", "device"])]
    pictures: Vec<PathBuf>,

    /// Folders of real pictures to look among: all there are, those asked for included.
    /// Lines of captions.jsonl have `file`, `captions`, `concept`, `style`, maybe `colour`.
    #[arg(long, value_name = "FOLDER", num_args = 1.., required = true)]
    pub gallery: Vec<PathBuf>,

    /// Measure this many of each folder, a fixed draw: always the same ones.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,

    #[command(flatten)]
    sampler: SamplerArgs,

    /// The picture of line i of a folder's list, counted from 0, has the seed SEED + i.
    #[arg(long, default_value_t = 0)]
    pub seed: u64,

    /// Pictures made and decoded together on a GPU.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub batch_size: u32,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Folder for report.json, a sheet of each folder measured, and the pictures made; made
    /// if missing.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,

    /// Replace a report that is there.
    #[arg(long)]
    overwrite: bool,
}

/// What is measured, opened and checked, before anything is made.
pub struct Measured<'a> {
    args: &'a SubjectArgs,
    /// Folders with the places of the labels to measure, in a drawn order.
    folders: Vec<(LabelledFolder, Vec<usize>)>,
    gallery: Vec<LabelledFolder>,
    model: Option<Model>,
}

/// A model and how it will be asked.
pub struct Model {
    pub checkpoint: Checkpoint,
    pub path: PathBuf,
    /// Its requests are those of all folders, one after the other.
    pub plan: Plan,
    pub sampler: SamplingPlan,
    pub device: Device,
}

/// The measured pictures of one folder.
pub struct Split {
    pub folder: LabelledFolder,
    /// Their places in the folder's labels.
    pub places: Vec<usize>,
    pub pictures: Vec<Picture>,
    /// Where they lie.
    pub files: Vec<PathBuf>,
    /// Pictures that were to be measured.
    pub asked: usize,
}

/// Everything that was measured.
pub struct Made {
    pub splits: Vec<Split>,
    pub origin: Origin,
    /// Whether a signal ended the work early.
    pub stopped: bool,
}

/// Where the pictures are from.
#[derive(Serialize)]
#[serde(untagged)]
pub enum Origin {
    Model {
        checkpoint: PathBuf,
        model_sha256: String,
        options: Options,
        seed: u64,
        seconds_per_picture: f64,
    },
    Pictures {
        pictures: Vec<PathBuf>,
    },
}

impl Split {
    pub fn labels(&self) -> Vec<&Label> {
        self.places
            .iter()
            .map(|&p| &self.folder.labels[p])
            .collect()
    }

    /// A problem with the `n`-th picture's label.
    pub fn problem(&self, n: usize, problem: impl std::fmt::Display) -> DataError {
        self.folder.problem(self.places[n], problem)
    }
}

impl SubjectArgs {
    /// Opens everything but pictures and weights; prepares the output folder.
    pub fn open(&self) -> Result<Measured<'_>, Box<dyn Error>> {
        let device = self.compute.set_up()?;
        let open = |folder: &PathBuf| LabelledFolder::open(folder);
        let gallery = self.gallery.iter().map(open).collect::<Result<_, _>>()?;
        let asked = match self.checkpoint {
            Some(_) => &self.prompts,
            None => &self.pictures,
        };
        let mut folders: Vec<(LabelledFolder, Vec<usize>)> = Vec::new();
        for path in asked {
            let folder = LabelledFolder::open(path)?;
            if let Some((same, _)) = folders.iter().find(|(f, _)| f.name == folder.name) {
                return Err(format!(
                    "{} and {} have the same name, by which results are told apart",
                    same.path.display(),
                    folder.path.display()
                )
                .into());
            }
            let places = folder.drawn(self.limit.map(|n| n as usize));
            folders.push((folder, places));
        }
        let model = self.checkpoint.as_deref();
        let model = model
            .map(|path| self.open_model(path, device, &folders))
            .transpose()?;
        let mut results = vec![self.out.join("report.json")];
        for (folder, _) in &folders {
            results.push(self.out.join(format!("{}.png", folder.name)));
            results.extend(model.is_some().then(|| self.out.join(&folder.name)));
        }
        out_folder::prepare(&self.out, &results, self.overwrite)?;
        Ok(Measured {
            args: self,
            folders,
            gallery,
            model,
        })
    }

    fn open_model(
        &self,
        path: &Path,
        device: Device,
        folders: &[(LabelledFolder, Vec<usize>)],
    ) -> Result<Model, Box<dyn Error>> {
        let checkpoint = self.model.open(path)?;
        self.compute.limit_threads(&checkpoint.config);
        if checkpoint.config.text.is_none() {
            let path = path.display();
            return Err(format!("{path}: the model reads no text, expected one that does").into());
        }
        let mut requests = Vec::new();
        for (folder, places) in folders {
            for &place in places {
                let caption = folder.labels[place].captions.first();
                let caption = caption.ok_or_else(|| folder.problem(place, "has no caption"))?;
                let seed = self.seed.checked_add(place as u64).ok_or_else(|| {
                    format!(
                        "--seed is {}, expected room above it for {place} more",
                        self.seed
                    )
                })?;
                requests.push(Request {
                    subject: Subject::Text(caption.clone()),
                    seed,
                });
            }
        }
        let plan = Plan {
            requests,
            options: self.sampler.options(&checkpoint.config, device),
            edit: None,
            negative_prompt: None,
            wanted_model: None,
        };
        Ok(Model {
            sampler: plan.sampler(&checkpoint.config)?,
            checkpoint,
            path: path.to_path_buf(),
            plan,
            device,
        })
    }
}

impl Measured<'_> {
    pub fn gallery(&self) -> &[LabelledFolder] {
        &self.gallery
    }

    /// Checks every label that is to be measured.
    pub fn check<E: std::fmt::Display>(
        &self,
        check: impl Fn(&Label) -> Result<(), E>,
    ) -> Result<(), DataError> {
        for (folder, places) in &self.folders {
            for &place in places {
                check(&folder.labels[place]).map_err(|e| folder.problem(place, e))?;
            }
        }
        Ok(())
    }

    /// Reads or makes the pictures. A signal ends the making; what was made till then is
    /// scored.
    pub fn pictures(self) -> Result<Made, Box<dyn Error>> {
        match self.model {
            Some(model) => make(self.args, self.folders, model),
            None => {
                let split = |(folder, places): (LabelledFolder, Vec<usize>)| {
                    let files = places
                        .iter()
                        .map(|&p| folder.path.join(&folder.labels[p].file));
                    Ok(Split {
                        pictures: folder.pictures(&places)?,
                        files: files.collect(),
                        asked: places.len(),
                        places,
                        folder,
                    })
                };
                let splits: Result<_, DataError> = self.folders.into_iter().map(split).collect();
                Ok(Made {
                    splits: splits?,
                    origin: Origin::Pictures {
                        pictures: self.args.pictures.clone(),
                    },
                    stopped: false,
                })
            }
        }
    }
}
