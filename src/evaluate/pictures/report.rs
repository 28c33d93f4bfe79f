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

/// What the networks say.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Figures {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inception: Option<InceptionReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dinov2: Option<Distances>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip: Option<ClipReport>,
}

impl Figures {
    /// The figures by name, one number each.
    pub fn named(&self) -> Vec<(&'static str, f64)> {
        let mut named = Vec::new();
        if let Some(InceptionReport {
            pool,
            sfid,
            inception_score,
        }) = &self.inception
        {
            named.extend([("fid", pool.fd), ("fid_infinity", pool.fd_infinity)]);
            named.extend(sfid.map(|sfid| ("sfid", sfid)));
            named.extend(pool.kid.map(|kid| ("kid_x1000", 1000.0 * kid.mean)));
            named.push(("inception_score", inception_score.mean));
            if let Some(balls) = &pool.balls {
                named.extend([
                    ("precision", balls.precision),
                    ("recall", balls.recall),
                    ("density", balls.density),
                    ("coverage", balls.coverage),
                ]);
            }
        }
        if let Some(dinov2) = &self.dinov2 {
            named.push(("fd_dinov2", dinov2.fd));
            named.push(("fd_dinov2_infinity", dinov2.fd_infinity));
            named.extend(dinov2.kid.map(|kid| ("kd_dinov2_x1000", 1000.0 * kid.mean)));
            if let Some(balls) = &dinov2.balls {
                named.extend([
                    ("dinov2_precision", balls.precision),
                    ("dinov2_recall", balls.recall),
                    ("dinov2_density", balls.density),
                    ("dinov2_coverage", balls.coverage),
                ]);
            }
        }
        if let Some(clip) = &self.clip {
            named.extend(clip.cmmd.map(|cmmd| ("cmmd", cmmd)));
            if let Some(captions) = &clip.captions {
                named.push(("clip_score", captions.clip_score.score_100));
            }
        }
        named
    }
}

/// What the networks say, with the control that goes with the pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Compared {
    #[serde(flatten)]
    pub figures: Figures,
    /// With the captions of other pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffled_captions: Option<CaptionFigures>,
}

/// What the figures are where nothing is generated.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Controls {
    /// Half of the reals against the other half.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halves: Option<RealFigures>,
    /// The reals as the model's codec gives them back against the reals: what the tokens
    /// can show at most.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reconstructions: Option<RealFigures>,
    /// The captions of other pictures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shuffled_captions: Option<CaptionFigures>,
}

/// Figures of real pictures against real pictures.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct RealFigures {
    /// Pictures of the first side.
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
    #[serde(flatten)]
    pub figures: Figures,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memorisation: Option<Memorisation>,
    pub controls: Controls,
}

/// A row a figure, the control beside it.
impl fmt::Display for ComparisonReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let halves = self.controls.halves.clone().unwrap_or_default();
        let mut row = |name: &str, value: String, beside: Option<String>| match beside {
            Some(beside) => writeln!(f, "{name:<24}{value:>14}   {beside}"),
            None => writeln!(f, "{name:<24}{value:>14}"),
        };
        let plain = |value: f64| format!("{value:.4}");
        let kid = |kid: &KidFigures| format!("{:.4}", 1000.0 * kid.mean);
        let of_halves = |value: Option<String>| value.map(|v| format!("halves of the reals {v}"));
        let figures = &self.figures;
        if let Some(inception) = &figures.inception {
            let half = of_halves(halves.fid.map(plain));
            row("FID", plain(inception.pool.fd), half)?;
            row("FD infinity", plain(inception.pool.fd_infinity), None)?;
            if let Some(sfid) = inception.sfid {
                row("sFID", plain(sfid), None)?;
            }
            if let Some(found) = &inception.pool.kid {
                row(
                    "KID x 1000",
                    kid(found),
                    of_halves(halves.kid.as_ref().map(kid)),
                )?;
            }
            let score = inception.inception_score;
            let text = format!("{:.4} ± {:.4}", score.mean, score.std);
            row("Inception score", text, None)?;
        }
        if let Some(dinov2) = &figures.dinov2 {
            let half = of_halves(halves.fd_dinov2.map(plain));
            row("FD-DINOv2", plain(dinov2.fd), half)?;
            row("FD-DINOv2 infinity", plain(dinov2.fd_infinity), None)?;
        }
        let sets = [
            ("Inception", figures.inception.as_ref().map(|i| &i.pool)),
            ("DINOv2", figures.dinov2.as_ref()),
        ];
        for (network, distances) in sets {
            if let Some(balls) = distances.and_then(|d| d.balls.as_ref()) {
                let spread = &balls.intervals;
                let rows = [
                    ("precision", balls.precision, spread.precision),
                    ("recall", balls.recall, spread.recall),
                    ("density", balls.density, spread.density),
                    ("coverage", balls.coverage, spread.coverage),
                ];
                for (name, value, [low, high]) in rows {
                    let interval = format!("{low:.4} to {high:.4}");
                    row(&format!("{name} {network}"), plain(value), Some(interval))?;
                }
            }
        }
        if let Some(clip) = &figures.clip {
            if let Some(cmmd) = clip.cmmd {
                row("CMMD", plain(cmmd), of_halves(halves.cmmd.map(plain)))?;
            }
            if let Some(captions) = &clip.captions {
                let [low, high] = captions.score_100_interval;
                let shuffled = self.controls.shuffled_captions.as_ref();
                let other = shuffled.map_or(String::new(), |s| {
                    format!(", shuffled captions {:.4}", s.clip_score.score_100)
                });
                let beside = format!("{low:.4} to {high:.4}{other}");
                row(
                    "CLIP score",
                    plain(captions.clip_score.score_100),
                    Some(beside),
                )?;
            }
        }
        if let Some(memorisation) = &self.memorisation {
            row("AuthPct", format!("{:.2}", memorisation.authpct), None)?;
        }
        Ok(())
    }
}
