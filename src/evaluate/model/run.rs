//! From a protocol and a model to the report.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use super::asked::{Asked, Reals};
use super::error::ModelError;
use super::made::{MadeEvent, MadeSet};
use super::protocol::ModelProtocol;
use super::report::{ModelReport, RealsReport, RunReport, SamplesReport};
use crate::codec::image_codec::to_bytes;
use crate::codec::Rounding;
use crate::evaluate::pictures::compare::{compare, controls, copies, RealPictures};
use crate::evaluate::pictures::extract::{extract, extract_through, Extractor, Setting};
use crate::evaluate::pictures::gathered::SetFeatures;
use crate::evaluate::pictures::networks::Network;
use crate::evaluate::pictures::report::Controls;
use crate::evaluate::pictures::run::{observed, set_report, stored_statistics, ExtractionEvent};
use crate::evaluate::pictures::set::PictureSet;
use crate::evaluate::pictures::ComparisonError;
use crate::files::{self, FileError};
use crate::picture::Picture;
use crate::pipeline::{Maker, PictureOptions, Pipeline, Selection, Subject};
use crate::ranks::Ranks;

/// The protocol as it was run, with the list of reals settled.
pub const PROTOCOL: &str = "protocol.yaml";
/// The list of reals and captions, whose SHA-256 the protocol has.
pub const LIST: &str = "reals.txt";
/// What the folder's pictures are of.
const RUN: &str = "run.json";
/// Bytes of the largest such file.
const LARGEST: u64 = 1 << 20;

/// What is measured, and how.
pub struct ModelRun<'a> {
    pub protocol: ModelProtocol,
    pub checkpoint: PathBuf,
    pub pipeline: &'a Pipeline,
    /// The sampler's options, the protocol's among them.
    pub options: PictureOptions,
    pub selection: Option<&'a Selection>,
    /// Runs with seeds of their own, at least 1.
    pub runs: u64,
    /// Whether the pictures stay.
    pub keep: bool,
    /// Training pictures to look for copies of.
    pub train: Option<PathBuf>,
    /// The folder that keeps features of real pictures.
    pub cache: Option<PathBuf>,
    pub out: PathBuf,
    /// The processes that make the pictures together, in one folder; the first measures.
    pub ranks: &'a Ranks,
}

/// What the caller hears.
pub enum RunEvent<'a> {
    /// Features of real pictures.
    Reals(ExtractionEvent<'a>),
    /// The run `run` of so many pictures begins.
    Run { run: u64, pictures: usize },
    /// How far it is.
    Made(MadeEvent),
    /// It is complete.
    End,
}

/// The reals with everything computed of them once.
pub struct MeasuredReals {
    pub reals: RealPictures,
    pub controls: Controls,
    pub report: RealsReport,
    pub train: Option<SetFeatures>,
}

impl<'a> ModelRun<'a> {
    /// The same measured with other `options`, in the folder `out`.
    pub fn with(&self, options: PictureOptions, out: PathBuf) -> ModelRun<'a> {
        ModelRun {
            protocol: self.protocol.clone(),
            checkpoint: self.checkpoint.clone(),
            options,
            train: self.train.clone(),
            cache: self.cache.clone(),
            out,
            ..*self
        }
    }

    fn setting(&self) -> Setting {
        Setting {
            crop: Some(self.protocol.reals.crop),
            pillow: self.protocol.measures.pillow,
            device: self.pipeline.device(),
        }
    }

    /// Measures by `networks`, one of a kind. Everything made and measured lies in the run's
    /// folder; a second call goes on there. Of several processes the first has the report.
    ///
    /// # Errors
    ///
    /// See [`ModelError`]; [`ModelError::is_stop`] if `stop` was set.
    pub fn run(
        mut self,
        networks: Vec<Network>,
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<Option<ModelReport>, ModelError> {
        let mut maker = self.pipeline.maker(&self.options)?;
        if let Some(selection) = self.selection {
            selection.check(self.pipeline.config())?;
        }
        let asked = self.settle(&maker)?;
        // The folder is this run's before any process writes there.
        self.ranks.wait_for_all()?;
        let described = networks.iter().map(Network::described).collect();
        let mut extractors = self.extractors(networks)?;
        let mut measured = None;
        if self.ranks.is_first() {
            let reals = self.reals(&asked, &mut extractors, stop, on_event);
            if reals.as_ref().is_err_and(ModelError::is_stop) {
                // The others ask when their pictures are made.
                self.ranks.any(true)?;
            }
            measured = Some(reals?);
        }
        let mut runs = Vec::new();
        for run in 0..self.runs.max(1) {
            let folder = self.out.join(format!("run-{run}"));
            let made = self.make(
                &folder,
                run,
                &asked,
                &mut maker,
                &mut extractors,
                stop,
                on_event,
            )?;
            if let (Some(made), Some(measured)) = (made, &measured) {
                runs.push(self.measure(&made, measured, &asked, &extractors)?);
            }
        }
        let Some(measured) = measured else {
            return Ok(None);
        };
        let settings = maker.settings().clone();
        Ok(Some(ModelReport {
            measure: "model",
            version: env!("CARGO_PKG_VERSION"),
            protocol_sha256: self.protocol.sha256(&settings),
            checkpoint: self.checkpoint,
            model_sha256: self.pipeline.fingerprint().to_string(),
            samples: SamplesReport::new(&runs, settings, maker.calls(), self.selection),
            reals: measured.report,
            networks: described,
            summary: RunReport::summary(&runs),
            runs,
            controls: measured.controls,
            protocol: self.protocol,
        }))
    }

    /// What is asked for, with the folder made this run's by the first process.
    ///
    /// # Errors
    ///
    /// Reals that cannot be read, a folder with another run's pictures.
    pub fn settle(&mut self, maker: &Maker) -> Result<Asked, ModelError> {
        let asked = Asked::new(&self.protocol, self.pipeline.config())?;
        let list = files::sha256(asked.list.as_bytes());
        self.protocol.reals.list_sha256 = Some(list);
        if !self.ranks.is_first() {
            return Ok(asked);
        }
        let identity = RunIdentity {
            protocol: self.protocol.sha256(maker.settings()),
            model: self.pipeline.fingerprint().to_string(),
            ranking: self.selection.map(|s| s.fingerprint().to_string()),
        };
        identity.claim(&self.out)?;
        files::write(&self.out.join(LIST), &asked.list)?;
        let path = self.out.join(PROTOCOL);
        let text = serde_yaml::to_string(&self.protocol).map_err(|e| ModelError::Format {
            path: path.clone(),
            problem: e.to_string(),
        })?;
        files::write(&path, text)?;
        Ok(asked)
    }

    /// # Errors
    ///
    /// A cache that cannot be written.
    pub fn extractors(&self, networks: Vec<Network>) -> Result<Vec<Extractor>, ModelError> {
        let pillow = self.protocol.measures.pillow;
        let extractors = networks
            .into_iter()
            .map(|network| Extractor::new(network, pillow, self.cache.as_deref()));
        Ok(extractors.collect::<Result<_, _>>()?)
    }

    /// The features of the reals, of their reconstructions, and of the training pictures.
    ///
    /// # Errors
    ///
    /// Pictures that cannot be read, a signal.
    pub fn reals(
        &self,
        asked: &Asked,
        extractors: &mut [Extractor],
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<MeasuredReals, ModelError> {
        let setting = self.setting();
        let mut on_step = |event: ExtractionEvent| on_event(RunEvent::Reals(event));
        let seed = self.protocol.measures.seed;
        let (reals, report, reconstructions) = match &asked.reals {
            Reals::Statistics(path) => {
                let statistics = stored_statistics(path)?;
                let report = RealsReport::Statistics {
                    statistics: path.clone(),
                    sha256: files::sha256_of_file(path)?,
                };
                let reals = RealPictures::of_statistics(path.clone(), statistics, extractors);
                (reals, report, None)
            }
            Reals::Pictures(set) => {
                let features = observed(&set.path, set.len(), &mut on_step, |progress| {
                    extract(set, extractors, setting, stop, progress)
                })?;
                let few = set.first(self.protocol.samples.pictures);
                let name = PathBuf::from("the reconstructions of the reals");
                let coded = observed(&name, few.len(), &mut on_step, |progress| {
                    let mut through = |picture| Ok(self.reconstructed(picture));
                    extract_through(&few, extractors, setting, &mut through, stop, progress)
                })?;
                let report = RealsReport::Pictures(set_report(&features));
                let counted = self.protocol.reals.counted_as;
                let reals = RealPictures::of_pictures(features, extractors, counted)?;
                (reals, report, Some(coded))
            }
        };
        let train = match &self.train {
            None => None,
            Some(path) => {
                let set = PictureSet::open(path)?;
                Some(observed(path, set.len(), &mut on_step, |progress| {
                    extract(&set, extractors, setting, stop, progress)
                })?)
            }
        };
        Ok(MeasuredReals {
            controls: controls(extractors, &reals, reconstructions.as_ref(), seed)?,
            reals,
            report,
            train,
        })
    }

    /// What the model's codec gives back of a picture, at the picture's size.
    fn reconstructed(&self, picture: Picture) -> Picture {
        let [height, width] = self
            .pipeline
            .config()
            .picture_size()
            .map(|side| side as u32);
        let tokens = self.pipeline.encode(&picture.cover(width, height));
        let decoded = to_bytes(&self.pipeline.decode(&tokens), Rounding::Nearest);
        Picture::from_tensor(&decoded.get(0)).cover(picture.width, picture.height)
    }

    /// The features of the pictures of a run, made where they are missing in `folder`, some of
    /// the blocks in each process; with the seconds that a picture took. The first has them.
    ///
    /// # Errors
    ///
    /// As [`MadeSet::complete`].
    #[allow(clippy::too_many_arguments)]
    pub fn make(
        &self,
        folder: &Path,
        run: u64,
        asked: &Asked,
        maker: &mut Maker,
        extractors: &mut [Extractor],
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(RunEvent),
    ) -> Result<Option<MadeRun>, ModelError> {
        let requests = asked.requests(&self.protocol, run)?;
        let first_seed = requests.first().map_or(0, |request| request.seed);
        let set = MadeSet {
            folder,
            requests: &requests,
            selection: self.selection,
            first_seed: self.protocol.samples.first_seed,
            keep: self.keep,
        };
        on_event(RunEvent::Run {
            run,
            pictures: requests.len(),
        });
        let before = run as usize * set.blocks();
        let mut blocks = (0..set.blocks()).filter(|block| self.ranks.does(before + block));
        let outcome = blocks.try_for_each(|block| {
            let mut on_event = |event| on_event(RunEvent::Made(event));
            let setting = self.setting();
            set.complete(block, maker, extractors, setting, stop, &mut on_event)
        });
        let stopped = outcome.as_ref().is_err_and(ModelError::is_stop);
        if !stopped {
            outcome?;
        }
        // With this the blocks of all are there.
        if self.ranks.any(stopped)? {
            return Err(ComparisonError::Stopped.into());
        }
        on_event(RunEvent::End);
        if !self.ranks.is_first() {
            return Ok(None);
        }
        let (features, seconds_per_picture) = set.gather(extractors, self.setting())?;
        if self.keep {
            set.write_captions()?;
        }
        Ok(Some(MadeRun {
            first_seed,
            features,
            seconds_per_picture,
        }))
    }

    /// The figures of a run.
    ///
    /// # Errors
    ///
    /// Too few pictures.
    pub fn measure(
        &self,
        made: &MadeRun,
        measured: &MeasuredReals,
        asked: &Asked,
        extractors: &[Extractor],
    ) -> Result<RunReport, ModelError> {
        let captions: Vec<String> = asked
            .subjects
            .iter()
            .filter_map(|subject| match subject {
                Subject::Text(caption) => Some(caption.clone()),
                _ => None,
            })
            .collect();
        let captions = (!captions.is_empty()).then_some(captions.as_slice());
        let (device, seed) = (self.pipeline.device(), self.protocol.measures.seed);
        let features = &made.features;
        Ok(RunReport {
            first_seed: made.first_seed,
            samples: set_report(features),
            seconds_per_picture: made.seconds_per_picture,
            compared: compare(
                extractors,
                features,
                &measured.reals,
                captions,
                device,
                seed,
            )?,
            memorisation: measured
                .train
                .as_ref()
                .map(|train| copies(extractors, features, train))
                .transpose()?,
        })
    }
}

/// The pictures of a run.
pub struct MadeRun {
    pub first_seed: u64,
    pub features: SetFeatures,
    pub seconds_per_picture: Option<f64>,
}

/// What the pictures of a folder are of.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunIdentity {
    /// SHA-256 of what decides the figures.
    protocol: String,
    /// Of the model's weights.
    model: String,
    /// Of the ranking network's.
    ranking: Option<String>,
}

impl RunIdentity {
    /// Makes `folder` this one's.
    fn claim(&self, folder: &Path) -> Result<(), ModelError> {
        std::fs::create_dir_all(folder).map_err(FileError::writing(folder))?;
        let path = folder.join(RUN);
        let failed = |e: serde_json::Error| FileError::reading(&path)(e.into());
        if path.exists() {
            let text = files::read_text(&path, LARGEST)?;
            let was: RunIdentity = serde_json::from_str(&text).map_err(failed)?;
            let none = || "none".to_string();
            let (before, now) = (was.ranking, self.ranking.clone());
            let parts = [
                (
                    "the protocol's SHA-256",
                    was.protocol,
                    self.protocol.clone(),
                ),
                ("the model's SHA-256", was.model, self.model.clone()),
                (
                    "the ranking network's SHA-256",
                    before.unwrap_or_else(none),
                    now.unwrap_or_else(none),
                ),
            ];
            for (what, was, is) in parts {
                if was != is {
                    return Err(ModelError::OtherRun {
                        path: folder.to_path_buf(),
                        what,
                        was,
                        is,
                    });
                }
            }
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(self).map_err(failed)?;
        Ok(files::write(&path, text)?)
    }
}
