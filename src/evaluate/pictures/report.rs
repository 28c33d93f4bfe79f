//! The report: every setting, every figure, and the controls that say what they are worth.

use std::fmt;
use std::path::PathBuf;

use serde::Serialize;

use super::measure::{CaptionFigures, Distances, KidFigures, Memorisation, ScoreFigures};
use super::networks::Described;
use crate::picture::Pillow;

/// A set of pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PictureSetReport {
    pub path: PathBuf,
    pub pictures: usize,
    /// Width and height.
    pub size: [u32; 2],
    /// Of the pictures' pixels in order.
    pub sha256: String,
}

/// What the samples are compared with.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ReferenceReport {
    Pictures(PictureSetReport),
    Statistics { statistics: PathBuf, sha256: String },
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InceptionReport {
    /// Of the last pooling: FID and FD∞ among them.
    #[serde(flatten)]
    pub pool: Distances,
    /// Of the first channels of `mixed_6`; absent where statistics have none.
    pub sfid: Option<f64>,
    pub inception_score: ScoreFigures,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClipReport {
    pub cmmd: Option<f64>,
    pub captions: Option<CaptionFigures>,
}

/// What the figures are where nothing is generated, or nothing fits.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Controls {
    /// Half of the reals against the other half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halves: Option<Halves>,
    /// The captions of other pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffled_captions: Option<CaptionFigures>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Halves {
    /// Pictures of a half.
    pub pictures: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fid: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<KidFigures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fd_dinov2: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cmmd: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ComparisonReport {
    pub measure: &'static str,
    pub version: &'static str,
    pub samples: PictureSetReport,
    pub references: ReferenceReport,
    /// Pixels a side that all pictures were scaled and cut to first.
    pub crop: Option<u32>,
    /// The release of Pillow whose resizing was repeated.
    pub pillow: Pillow,
    pub seed: u64,
    pub networks: Vec<Described>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inception: Option<InceptionReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dinov2: Option<Distances>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<ClipReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memorisation: Option<Memorisation>,
    pub controls: Controls,
}

/// A row a figure, the control beside it.
impl fmt::Display for ComparisonReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let halves = self.controls.halves.clone().unwrap_or_default();
        let mut row = |name: &str, value: String, control: Option<String>| match control {
            Some(control) => writeln!(f, "{name:<24}{value:>14}   halves of the reals {control}"),
            None => writeln!(f, "{name:<24}{value:>14}"),
        };
        let plain = |value: f64| format!("{value:.4}");
        let kid = |kid: &KidFigures| format!("{:.4}", 1000.0 * kid.mean);
        if let Some(inception) = &self.inception {
            row("FID", plain(inception.pool.fd), halves.fid.map(plain))?;
            row("FD infinity", plain(inception.pool.fd_infinity), None)?;
            if let Some(sfid) = inception.sfid {
                row("sFID", plain(sfid), None)?;
            }
            if let Some(found) = &inception.pool.kid {
                row("KID x 1000", kid(found), halves.kid.as_ref().map(kid))?;
            }
            let score = inception.inception_score;
            let text = format!("{:.4} ± {:.4}", score.mean, score.std);
            row("Inception score", text, None)?;
        }
        if let Some(dinov2) = &self.dinov2 {
            row("FD-DINOv2", plain(dinov2.fd), halves.fd_dinov2.map(plain))?;
            row("FD-DINOv2 infinity", plain(dinov2.fd_infinity), None)?;
        }
        let sets = [
            ("Inception", self.inception.as_ref().map(|i| &i.pool)),
            ("DINOv2", self.dinov2.as_ref()),
        ];
        for (network, distances) in sets {
            if let Some(balls) = distances.and_then(|d| d.balls) {
                let pair = |a: f64, b: f64| format!("{a:.3} / {b:.3}");
                let name = format!("prec / rec {network}");
                row(&name, pair(balls.precision, balls.recall), None)?;
                let name = format!("dens / cov {network}");
                row(&name, pair(balls.density, balls.coverage), None)?;
            }
        }
        if let Some(clip) = &self.clip {
            if let Some(cmmd) = clip.cmmd {
                row("CMMD", plain(cmmd), halves.cmmd.map(plain))?;
            }
            if let Some(captions) = clip.captions {
                let shuffled = self.controls.shuffled_captions;
                let other = shuffled.map_or(String::new(), |s| {
                    format!(" (shuffled captions {:.4})", s.clip_score.score_100)
                });
                let text = format!("{:.4}{other}", captions.clip_score.score_100);
                row("CLIP score", text, None)?;
            }
        }
        if let Some(memorisation) = &self.memorisation {
            row("AuthPct", format!("{:.2}", memorisation.authpct), None)?;
        }
        Ok(())
    }
}
