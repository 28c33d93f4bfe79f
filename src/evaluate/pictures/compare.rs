//! Features of generated pictures against those of real ones.

use std::path::PathBuf;

use tch::{Device, Tensor};

use super::error::ComparisonError;
use super::extract::Extractor;
use super::gathered::SetFeatures;
use super::measure::{
    caption_figures, cmmd_of, distances, fd_of, halves, kid_figures, memorisation, of_set, score,
    shuffled, CaptionFigures, Memorisation, Reals,
};
use super::networks::Network;
use super::report::{ClipReport, Compared, Controls, Figures, InceptionReport, RealFigures};
use crate::metrics::statistics_file::Statistics;
use crate::metrics::{frechet_distance, Gaussian, MetricError};

/// The real pictures: what is computed of them once, whatever is compared with them.
pub struct RealPictures {
    path: PathBuf,
    /// `None` where there is but a file of statistics.
    pub features: Option<SetFeatures>,
    /// Of each network's features; CLIP has none.
    gaussians: Vec<Option<Gaussian>>,
    spatial: Option<Gaussian>,
}

impl RealPictures {
    /// Of pictures. `repeated`, if given, is the number that they count as in Gaussians: the
    /// first of them once more than the last.
    ///
    /// # Errors
    ///
    /// Too few pictures.
    pub fn of_pictures(
        features: SetFeatures,
        extractors: &[Extractor],
        repeated: Option<usize>,
    ) -> Result<Self, ComparisonError> {
        let path = features.path.clone();
        let gaussian = |of: &Tensor| match repeated {
            Some(count) => {
                let rows = Tensor::arange(count as i64, (tch::Kind::Int64, Device::Cpu));
                Gaussian::of(&of.index_select(0, &rows.remainder(of.size()[0])))
            }
            None => Gaussian::of(of),
        };
        let gaussians = extractors.iter().zip(&features.of).map(|(e, of)| {
            let needed = !matches!(e.network, Network::Clip(..));
            needed.then(|| of_set(&path, gaussian(of))).transpose()
        });
        let gaussians = gaussians.collect::<Result<_, _>>()?;
        let spatial = features.spatial.as_ref().map(|moments| moments.gaussian());
        Ok(RealPictures {
            spatial: of_set(&path, spatial.transpose())?,
            gaussians,
            path,
            features: Some(features),
        })
    }

    /// Of the statistics in the file `path`.
    pub fn of_statistics(path: PathBuf, statistics: Statistics, extractors: &[Extractor]) -> Self {
        let mut pool = Some(statistics.pool);
        let gaussians = extractors.iter().map(|e| match e.network {
            Network::Inception(..) => pool.take(),
            _ => None,
        });
        RealPictures {
            gaussians: gaussians.collect(),
            path,
            features: None,
            spatial: statistics.spatial,
        }
    }

    /// What pytorch-fid and its kin keep of them, if Inception saw them.
    pub fn into_statistics(mut self, extractors: &[Extractor]) -> Option<Statistics> {
        let is_inception = |e: &Extractor| matches!(e.network, Network::Inception(..));
        let place = extractors.iter().position(is_inception)?;
        Some(Statistics {
            pool: self.gaussians[place].take()?,
            spatial: self.spatial,
        })
    }

    fn features_of(&self, place: usize) -> Option<&Tensor> {
        self.features.as_ref().map(|features| &features.of[place])
    }
}

/// The figures of `made` against `reals`; `captions` are those of the made pictures.
///
/// # Errors
///
/// Too few pictures, captions that CLIP does not read.
pub fn compare(
    extractors: &[Extractor],
    made: &SetFeatures,
    reals: &RealPictures,
    captions: Option<&[String]>,
    device: Device,
    seed: u64,
) -> Result<Compared, ComparisonError> {
    let mut figures = Figures::default();
    let mut shuffled_captions = None;
    for (place, extractor) in extractors.iter().enumerate() {
        let ours = &made.of[place];
        let theirs = reals.features_of(place);
        let known = theirs.map_or(Reals::Statistics, Reals::Features);
        match &extractor.network {
            Network::Inception(loaded, _) => {
                let Some(gaussian) = &reals.gaussians[place] else {
                    continue;
                };
                let measured = || -> Result<InceptionReport, MetricError> {
                    let sfid = match (&made.spatial, &reals.spatial) {
                        (Some(ours), Some(theirs)) => {
                            Some(frechet_distance(&ours.gaussian()?, theirs)?)
                        }
                        _ => None,
                    };
                    Ok(InceptionReport {
                        pool: distances(ours, gaussian, &known, seed)?,
                        sfid,
                        inception_score: score(&loaded.network, ours, device, seed)?,
                    })
                };
                figures.inception = Some(of_set(&made.path, measured())?);
            }
            Network::Dinov2(..) => {
                let Some(gaussian) = &reals.gaussians[place] else {
                    continue;
                };
                let measured = distances(ours, gaussian, &known, seed);
                figures.dinov2 = Some(of_set(&made.path, measured)?);
            }
            Network::Clip(loaded, _) => {
                let cmmd = theirs.map(|theirs| of_set(&made.path, cmmd_of(ours, theirs, seed)));
                let texts = match captions {
                    Some(captions) => loaded.network.embed(captions, device)?,
                    None => None,
                };
                let scale = loaded.network.logit_scale().unwrap_or(0.0);
                let of = |texts: &Tensor| -> Result<CaptionFigures, ComparisonError> {
                    of_set(&made.path, caption_figures(ours, texts, scale, seed))
                };
                figures.clip = Some(ClipReport {
                    cmmd: cmmd.transpose()?,
                    captions: texts.as_ref().map(of).transpose()?,
                });
                let shuffled = texts.map(|texts| of(&shuffled(&texts, seed)));
                shuffled_captions = shuffled.transpose()?;
            }
        }
    }
    Ok(Compared {
        figures,
        shuffled_captions,
    })
}

/// What the figures are where nothing is generated: half of the reals against the other
/// half, and the reals as the codec gives them back against the reals.
///
/// # Errors
///
/// Too few pictures.
pub fn controls(
    extractors: &[Extractor],
    reals: &RealPictures,
    reconstructions: Option<&SetFeatures>,
    seed: u64,
) -> Result<Controls, ComparisonError> {
    let Some(features) = &reals.features else {
        return Ok(Controls::default());
    };
    let mut apart = RealFigures {
        pictures: features.names.len() / 2,
        ..RealFigures::default()
    };
    let mut coded = reconstructions.map(|set| RealFigures {
        pictures: set.names.len(),
        ..RealFigures::default()
    });
    for (place, extractor) in extractors.iter().enumerate() {
        let theirs = &features.of[place];
        let [a, b] = halves(theirs, seed);
        let network = &extractor.network;
        let half = Gaussian::of(&b);
        of_set(
            &reals.path,
            half.and_then(|half| apart.add(network, &a, &b, Some(&half), seed)),
        )?;
        if let (Some(figures), Some(set)) = (&mut coded, reconstructions) {
            let gaussian = reals.gaussians[place].as_ref();
            let added = figures.add(network, &set.of[place], theirs, gaussian, seed);
            of_set(&reals.path, added)?;
        }
    }
    Ok(Controls {
        halves: Some(apart),
        reconstructions: coded,
        shuffled_captions: None,
    })
}

impl RealFigures {
    /// Adds what `network` says of features `a` `[N, D]` against `b` `[M, D]`, whose
    /// `gaussian` is known.
    fn add(
        &mut self,
        network: &Network,
        a: &Tensor,
        b: &Tensor,
        gaussian: Option<&Gaussian>,
        seed: u64,
    ) -> Result<(), MetricError> {
        let fd = || gaussian.map(|gaussian| fd_of(a, gaussian)).transpose();
        match network {
            Network::Inception(..) => {
                self.fid = fd()?;
                self.kid = Some(kid_figures(a, b, seed)?);
            }
            Network::Dinov2(..) => self.fd_dinov2 = fd()?,
            Network::Clip(..) => self.cmmd = Some(cmmd_of(a, b, seed)?),
        }
        Ok(())
    }
}

/// Copies of training pictures among the made ones, by DINOv2 where it is there, else by the
/// first network.
///
/// # Errors
///
/// Too few pictures.
pub fn copies(
    extractors: &[Extractor],
    made: &SetFeatures,
    train: &SetFeatures,
) -> Result<Memorisation, ComparisonError> {
    let is_dinov2 = |e: &Extractor| matches!(e.network, Network::Dinov2(..));
    let place = extractors.iter().position(is_dinov2).unwrap_or(0);
    let found = memorisation(
        extractors[place].network.described().network,
        (&made.of[place], &made.names),
        (&train.of[place], &train.names),
    );
    of_set(&made.path, found)
}
