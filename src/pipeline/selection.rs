//! The best of several candidates: pictures that a network ranks, as published figures of
//! reranking (CLIP; arXiv 2102.12092) and of classifier-based acceptance (a ResNet; arXiv
//! 1906.00446, 2012.09841) were made.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor};

use super::maker::{MadePicture, Maker, ObserveStep};
use super::subject::{ConditionError, Request, Subject};
use crate::checkpoint::LoadError;
use crate::clip::TokenizerError;
use crate::metrics::clip_score::cosines;
use crate::metrics::networks::weights::Loaded;
use crate::metrics::networks::{Clip, ResNet};
use crate::metrics::preparation::{imagenet_square, ClipCrop};
use crate::metrics::MetricError;
use crate::model::ModelConfig;
use crate::picture::{Picture, Pillow};
use crate::torch::host::values;
use crate::transformer::Conditioning;

/// By what candidates are ranked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ranking {
    /// The cosine of picture and prompt in CLIP.
    Clip,
    /// The probability of the class by a classifier of ImageNet.
    Classifier,
}

/// Why candidates cannot be ranked.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Condition(#[from] ConditionError),
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    #[error(transparent)]
    Metric(#[from] MetricError),
    #[error("ranking by CLIP: {}", .0)]
    Clip(&'static str),
    #[error("ranking by a classifier: {problem}")]
    Classifier { problem: String },
    #[error("{}: has no text tower, expected a CLIP file with both", path.display())]
    NoText { path: PathBuf },
}

enum Judge {
    Clip(Loaded<Clip>),
    Classifier(Loaded<ResNet>),
}

/// What ranks candidates, and how many there are.
pub struct Selection {
    judge: Judge,
    /// Candidates for every picture that is kept.
    pub candidates: usize,
    device: Device,
}

impl Selection {
    /// Opens the ranking network in the file `weights`.
    ///
    /// # Errors
    ///
    /// A file of something else, a CLIP without text.
    pub fn open(
        ranking: Ranking,
        weights: &Path,
        candidates: usize,
        device: Device,
    ) -> Result<Self, SelectionError> {
        let judge = match ranking {
            Ranking::Clip => Judge::Clip(Clip::load(weights, None, device)?),
            Ranking::Classifier => Judge::Classifier(ResNet::load(weights, device)?),
        };
        if let Judge::Clip(clip) = &judge {
            if clip.network.text_config().is_none() {
                let path = weights.to_path_buf();
                return Err(SelectionError::NoText { path });
            }
        }
        Ok(Selection {
            judge,
            candidates: candidates.max(1),
            device,
        })
    }

    /// SHA-256 of the ranking network's weights.
    pub fn fingerprint(&self) -> &str {
        match &self.judge {
            Judge::Clip(clip) => &clip.fingerprint,
            Judge::Classifier(network) => &network.fingerprint,
        }
    }

    /// Whether pictures of `model` can be ranked.
    ///
    /// # Errors
    ///
    /// A model without text for CLIP; without classes, or with more than it knows, for a
    /// classifier.
    pub fn check(&self, model: &ModelConfig) -> Result<(), SelectionError> {
        match (&self.judge, &model.denoiser.condition) {
            (Judge::Clip(_), Conditioning::Text { .. }) => Ok(()),
            (Judge::Clip(_), _) => Err(SelectionError::Clip("the model reads no text")),
            (Judge::Classifier(network), Conditioning::Class { classes, .. }) => {
                let known = network.network.config().classes;
                match *classes <= known {
                    true => Ok(()),
                    false => Err(SelectionError::Classifier {
                        problem: format!("it knows {known} classes, the model {classes}"),
                    }),
                }
            }
            (Judge::Classifier(_), _) => Err(SelectionError::Classifier {
                problem: "the model has no classes".into(),
            }),
        }
    }

    /// The candidates of `requests`, which show one subject ([`candidates_of`]).
    pub fn candidates(&self, requests: &[Request], first_seed: u64) -> Vec<Request> {
        candidates_of(requests, first_seed, self.candidates)
    }

    /// Makes `candidates`, all of one subject, and keeps the best `keep` in the order of
    /// their seeds; `None` if `observe` stopped the run.
    ///
    /// # Errors
    ///
    /// A subject that the model cannot show, or that cannot be ranked.
    pub fn best(
        &self,
        maker: &mut Maker,
        candidates: &[Request],
        keep: usize,
        observe: &mut ObserveStep,
    ) -> Result<Option<Vec<MadePicture>>, SelectionError> {
        let mut best: Vec<(f64, usize, MadePicture)> = Vec::new();
        let mut place = 0;
        for batch in candidates.chunks(maker.batch()) {
            let Some(made) = maker.make(batch, observe)? else {
                return Ok(None);
            };
            let pictures: Vec<&Picture> = made.iter().map(|made| &made.picture).collect();
            let scores = self.scores(&batch[0].subject, &pictures)?;
            for (score, made) in scores.into_iter().zip(made) {
                best.push((score, place, made));
                place += 1;
            }
            // The highest first; of equals the earlier.
            best.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            best.truncate(keep);
        }
        best.sort_by_key(|(_, place, _)| *place);
        Ok(Some(best.into_iter().map(|(.., made)| made).collect()))
    }

    /// How well each of `pictures` shows `subject`; more is better.
    ///
    /// # Errors
    ///
    /// A subject of another kind than the network ranks.
    pub fn scores(
        &self,
        subject: &Subject,
        pictures: &[&Picture],
    ) -> Result<Vec<f64>, SelectionError> {
        let stack = |of: &dyn Fn(&Picture) -> Tensor| {
            let seen: Vec<Tensor> = pictures.iter().map(|picture| of(picture)).collect();
            Tensor::stack(&seen, 0).to_device(self.device)
        };
        match (&self.judge, subject) {
            (Judge::Clip(clip), Subject::Text(prompt)) => {
                let side = clip.network.vision().config().picture as u32;
                let crop = ClipCrop::Openai;
                let seen = stack(&|p| crop.prepare(p, side, Pillow::default()));
                let images = clip.network.images(&seen).embedding.to_device(Device::Cpu);
                let text = clip
                    .network
                    .embed(std::slice::from_ref(prompt), self.device)?;
                let text = text.ok_or_else(|| SelectionError::NoText {
                    path: clip.path.clone(),
                })?;
                Ok(values(&cosines(&images, &text.expand_as(&images))?))
            }
            (Judge::Classifier(network), &Subject::Class(class)) => {
                let seen = stack(&|p| imagenet_square(p, Pillow::default()));
                let logits = network.network.forward(&seen);
                // Its logarithm: certain classifiers' probabilities are 0 or 1 in f32.
                let log_p = logits.log_softmax(-1, Kind::Double).select(1, class); // [B]
                Ok(values(&log_p))
            }
            (Judge::Clip(_), _) => Err(SelectionError::Clip("not a prompt")),
            (Judge::Classifier(_), _) => Err(SelectionError::Classifier {
                problem: "not a class".into(),
            }),
        }
    }
}

/// `count` candidates for each of `requests`: those of picture n, by its seed counted from
/// `first_seed`, have the seeds `first_seed` + n · `count` and following.
pub fn candidates_of(requests: &[Request], first_seed: u64, count: usize) -> Vec<Request> {
    let count = count as u64;
    let of = |request: &Request| {
        let number = request.seed.wrapping_sub(first_seed);
        let start = first_seed.wrapping_add(number.wrapping_mul(count));
        let subject = request.subject.clone();
        (0..count).map(move |j| Request {
            subject: subject.clone(),
            seed: start.wrapping_add(j),
        })
    };
    requests.iter().flat_map(of).collect()
}
