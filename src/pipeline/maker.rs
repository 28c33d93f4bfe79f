//! From subjects and options to pictures.

use std::ops::{ControlFlow, Range};
use std::path::Path;
use std::rc::Rc;

use tch::{Device, Tensor};

use super::canvas::Canvas;
use super::edit::{Edit, EditRecord};
use super::error::Error;
use super::kept_tokens::KeptTokens;
use super::load::Pipeline;
use super::options::{OptionsError, PictureOptions, PictureSettings};
use super::record::Record;
use super::sampling::{Edits, FixedRun, Origin};
use super::subject::{ConditionError, Request, Subject};
use crate::codec::image_codec::to_bytes;
use crate::diffusion::sampler::fixed::FixedSteps;
use crate::diffusion::sampler::{Calls, Progress};
use crate::diffusion::SamplingPlan;
use crate::picture::{write_png, Picture, PictureError};
use crate::torch::graph::Recorder;
use crate::torch::host::values;
use crate::transformer::Condition;

/// A picture, its tokens, and how it was made.
#[derive(Clone, Debug)]
pub struct MadePicture {
    pub picture: Picture,
    /// Row-major over the token grid, each below K.
    pub tokens: Vec<i64>,
    pub record: Record,
}

impl MadePicture {
    /// Writes a PNG that says how it was made and so can be made again
    /// ([`Record::read`]). It appears whole or not at all.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_png(&self, path: impl AsRef<Path>) -> Result<(), PictureError> {
        write_png(path.as_ref(), &self.picture, &self.record.texts())
    }

    /// The text chunks of a PNG that also keeps the tokens, so that redrawing a part of it
    /// later loses nothing to the codec.
    pub fn texts(&self) -> Vec<(&'static str, String)> {
        let mut texts = self.record.texts();
        let kept = KeptTokens {
            model_sha256: self.record.model_sha256.clone(),
            tokens: self.tokens.clone(),
        };
        texts.push((KeptTokens::KEYWORD, kept.text(&self.picture)));
        texts
    }
}

/// A reverse step that was made.
pub struct SamplingStep<'a> {
    /// The pictures that it is about, by their places among those asked for.
    pub pictures: Range<usize>,
    /// Steps done, tokens, the positions that the step changed, and entropy if asked for.
    pub progress: &'a Progress<'a>,
    maker: &'a Maker<'a>,
}

impl SamplingStep<'_> {
    /// The picture of row `i` of the tokens as they are now, with masked ones in grey.
    pub fn unfinished(&self, i: usize) -> Picture {
        let row = self.progress.tokens.narrow(0, i as i64, 1);
        self.maker.unfinished(&row)
    }
}

/// Follows a run; [`ControlFlow::Break`] stops it before the next step.
pub type ObserveStep<'a> = dyn FnMut(SamplingStep) -> ControlFlow<()> + 'a;

/// Makes pictures with options that are checked, from a picture that is encoded, if one
/// is started from.
pub struct Maker<'a> {
    pipeline: &'a Pipeline,
    plan: SamplingPlan,
    settings: PictureSettings,
    batch_size: usize,
    edits: Edits,
    edit: Option<(EditRecord, Canvas)>,
    /// The subjects of the last batch, and their condition.
    known: Option<(Vec<Subject>, Condition)>,
    /// What records the steps of runs; none where they are not recorded.
    recorder: Option<Rc<Recorder>>,
    /// The recorded steps of the last batch.
    fixed: Option<FixedRun>,
}

impl Pipeline {
    /// The options that suit this model.
    pub fn usual(&self) -> PictureOptions {
        PictureOptions::usual(self.config())
    }

    /// Makes `options.count` pictures of each of `subjects`: prompts, or a [`Subject`]
    /// of the kind that the model takes.
    ///
    /// # Errors
    ///
    /// Options that do not fit the model, a subject that it cannot show.
    pub fn pictures<S>(
        &self,
        subjects: &[S],
        options: &PictureOptions,
    ) -> Result<Vec<MadePicture>, Error>
    where
        S: Clone + Into<Subject>,
    {
        self.pictures_observed(subjects, options, &mut |_| ControlFlow::Continue(()))
    }

    /// As [`pictures`](Self::pictures), with `observe` following each step. If it stops
    /// the run, those pictures are returned that were finished.
    ///
    /// # Errors
    ///
    /// As for [`pictures`](Self::pictures).
    pub fn pictures_observed<S>(
        &self,
        subjects: &[S],
        options: &PictureOptions,
        observe: &mut ObserveStep,
    ) -> Result<Vec<MadePicture>, Error>
    where
        S: Clone + Into<Subject>,
    {
        let requests = options.requests(subjects)?;
        let mut maker = self.maker(options)?;
        let mut made = Vec::with_capacity(requests.len());
        for batch in requests.chunks(maker.batch()) {
            let first = made.len();
            let pictures = maker.make(batch, &mut |step| {
                observe(SamplingStep {
                    pictures: first + step.pictures.start..first + step.pictures.end,
                    ..step
                })
            })?;
            match pictures {
                Some(pictures) => made.extend(pictures),
                None => break,
            }
        }
        Ok(made)
    }

    /// Makes the picture of `record` again; if it was made from another one, with the
    /// `edit` of that ([`Record::edit`]).
    ///
    /// # Errors
    ///
    /// A record of another model or number format than this pipeline's.
    pub fn repeat(&self, record: &Record, edit: Option<Edit>) -> Result<MadePicture, Error> {
        record.check(self.fingerprint(), self.precision())?;
        let mut maker = self.maker(&record.options(edit))?;
        let made = maker.make(std::slice::from_ref(&record.request), &mut |_| {
            ControlFlow::Continue(())
        })?;
        Ok(made.into_iter().flatten().next().expect("one picture"))
    }

    /// What makes pictures with `options`, batch by batch.
    ///
    /// # Errors
    ///
    /// Options that do not fit the model.
    pub fn maker(&self, options: &PictureOptions) -> Result<Maker<'_>, Error> {
        let plan = options.plan(self.config())?;
        let edit = match &options.edit {
            Some(edit) => {
                let canvas = edit.canvas(self.config()).map_err(OptionsError::from)?;
                Some((edit.record().clone(), canvas))
            }
            None => None,
        };
        let edits = Edits {
            origin: edit.as_ref().map(|(_, canvas)| Origin {
                tokens: match options.edit.as_ref().and_then(|edit| edit.tokens(self)) {
                    Some(tokens) => Tensor::from_slice(tokens).unsqueeze(0),
                    None => self.encode(&canvas.picture),
                },
                redrawn: canvas
                    .redrawn
                    .as_deref()
                    .map(|cells| Tensor::from_slice(cells).unsqueeze(0)),
            }),
            negative_prompt: options.negative_prompt.clone(),
        };
        let recorder = match plan.has_like_steps() {
            true => self.recorder()?.map(Rc::new),
            false => None,
        };
        Ok(Maker {
            pipeline: self,
            settings: PictureSettings {
                plan: plan.recorded(),
                ..options.settings(self.precision())
            },
            plan,
            batch_size: options.batch_size.max(1),
            edits,
            edit,
            known: None,
            recorder,
            fixed: None,
        })
    }
}

impl<'a> Maker<'a> {
    pub fn pipeline(&self) -> &'a Pipeline {
        self.pipeline
    }

    pub fn plan(&self) -> &SamplingPlan {
        &self.plan
    }

    /// What repeats a picture, besides model, subject and seed.
    pub fn settings(&self) -> &PictureSettings {
        &self.settings
    }

    /// Evaluations of the network for a picture, those under the null condition counted, where
    /// every step makes one.
    pub fn calls(&self) -> Calls {
        self.plan.calls()
    }

    /// What the runs start from and lead away from.
    pub fn edits(&self) -> &Edits {
        &self.edits
    }

    /// Pictures that are best asked for together: one on the CPU, so that a picture does
    /// not depend on the batch it is made in.
    pub fn batch(&self) -> usize {
        match self.pipeline.device() {
            Device::Cpu => 1,
            _ => self.batch_size,
        }
    }

    /// Makes a batch of pictures; `None` if `observe` stopped the run.
    ///
    /// # Errors
    ///
    /// A request that the model cannot show.
    pub fn make(
        &mut self,
        requests: &[Request],
        observe: &mut ObserveStep,
    ) -> Result<Option<Vec<MadePicture>>, ConditionError> {
        let pipeline = self.pipeline;
        let subjects: Vec<Subject> = requests.iter().map(|r| r.subject.clone()).collect();
        let condition = match self.known.take() {
            Some((of, condition)) if of == subjects => condition,
            _ => pipeline.edited_condition(&subjects, &self.plan, &self.edits)?,
        };
        let seeds: Vec<u64> = requests.iter().map(|r| r.seed).collect();
        let mut fixed = self.fixed_run(&condition);
        let maker: &Maker = self;
        let mut observe = |progress: Progress| {
            observe(SamplingStep {
                pictures: 0..requests.len(),
                progress: &progress,
                maker,
            })
        };
        let (plan, edits) = (&maker.plan, &maker.edits);
        let tokens = match &mut fixed {
            Some(run) => {
                pipeline.sample_batch_fixed(run, plan, &seeds, edits, &condition, &mut observe)
            }
            None => pipeline.sample_batch(plan, &seeds, edits, &condition, &mut observe),
        }; // [B, L]
        self.fixed = fixed;
        self.known = Some((subjects, condition));
        let Ok(tokens) = tokens else {
            return Ok(None); // stopped
        };
        let decoded = pipeline.decode_in(&tokens, self.settings.decoding); // [B, 3, H, W]
        let decoded = to_bytes(&decoded, self.settings.rounding);
        let made = (0..).zip(requests).map(|(i, request)| MadePicture {
            picture: self.composited(Picture::from_tensor(&decoded.get(i))),
            tokens: values(&tokens.get(i)),
            record: self.record(request),
        });
        Ok(Some(made.collect()))
    }

    /// The recorded steps of the last batch, or new ones where they do not suit this one's
    /// `condition`; none where steps are not recorded.
    fn fixed_run(&mut self, condition: &Condition) -> Option<FixedRun> {
        let recorder = self.recorder.clone()?;
        match self.fixed.take().filter(|run| run.suits(condition)) {
            Some(run) => Some(run),
            None => Some(FixedRun::new(FixedSteps::new(Some(recorder)), condition)),
        }
    }

    /// The picture of an unfinished state `[1, L]`, with masked tokens in grey.
    pub fn unfinished(&self, tokens: &Tensor) -> Picture {
        let decoded = to_bytes(
            &self.pipeline.decode_partial(tokens, self.settings.decoding),
            self.settings.rounding,
        );
        self.composited(Picture::from_tensor(&decoded.get(0)))
    }

    /// How the picture of `request` is made.
    pub fn record(&self, request: &Request) -> Record {
        Record {
            request: request.clone(),
            settings: self.settings.clone(),
            model_sha256: self.pipeline.fingerprint().to_string(),
            edit: self.edit.as_ref().map(|(record, _)| record.clone()),
            negative_prompt: self.edits.negative_prompt.clone(),
        }
    }

    /// `made` with what was kept of the picture it started from.
    fn composited(&self, made: Picture) -> Picture {
        match &self.edit {
            Some((_, canvas)) => canvas.composite(made),
            None => made,
        }
    }
}
