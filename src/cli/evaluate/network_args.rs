//! Arguments that name the weights of the measuring networks, and where features are kept.

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::Args;
use tch::Device;

use crate::cli::choices;
use crate::clip::ClipActivation;
use crate::evaluate::model::protocol::MeasuresProtocol;
use crate::evaluate::pictures::networks::Network;
use crate::evaluate::pictures::ComparisonError;

#[derive(Args)]
#[command(next_help_heading = "Networks")]
pub struct NetworkArgs {
    /// Weights of FID's Inception (pt_inception-2015-12-05-6726825d.pth): FID, sFID, FD
    /// infinity, KID, Inception score, precision and recall, density and coverage.
    #[arg(long, value_name = "FILE")]
    pub inception: Option<PathBuf>,

    /// Weights of DINOv2 (dinov2_vitl14_pretrain.pth, or B/14): FD-DINOv2, precision and
    /// recall, density and coverage.
    #[arg(long, value_name = "FILE")]
    pub dinov2: Option<PathBuf>,

    /// Weights of CLIP (ViT-B-32.pt, ViT-L-14-336px.pt of CMMD, H/14 of PickScore or HPSv2):
    /// CMMD, and with captions the CLIP score.
    #[arg(long, value_name = "FILE")]
    pub clip: Option<PathBuf>,

    /// Activation of CLIP's blocks [default: by the width of the tower, gelu from H/14 on].
    #[arg(long, value_parser = choices::activation())]
    pub clip_activation: Option<ClipActivation>,

    /// The folder that keeps features from run to run [default: vqdiffusion/features in the
    /// user's cache folder].
    #[arg(long, value_name = "FOLDER", conflicts_with = "no_cache")]
    cache: Option<PathBuf>,

    /// Keep no features.
    #[arg(long)]
    no_cache: bool,
}

impl NetworkArgs {
    /// The networks of the given files, which see pictures as `measures` say; at least one.
    pub fn open(
        &self,
        measures: &MeasuresProtocol,
        device: Device,
    ) -> Result<Vec<Network>, Box<dyn Error>> {
        let networks = self.open_any(measures, device)?;
        match networks.is_empty() {
            true => Err("nothing to measure with: give --inception, --dinov2 or --clip".into()),
            false => Ok(networks),
        }
    }

    /// As [`open`](Self::open), where none is needed.
    pub fn open_any(
        &self,
        measures: &MeasuresProtocol,
        device: Device,
    ) -> Result<Vec<Network>, ComparisonError> {
        let mut networks = Vec::new();
        if let Some(file) = &self.inception {
            networks.push(Network::inception(file, measures.inception_resize, device)?);
        }
        if let Some(file) = &self.dinov2 {
            let (resize, positions) = (measures.dinov2_resize, measures.dinov2_positions);
            networks.push(Network::dinov2(file, resize, positions, device)?);
        }
        if let Some(file) = &self.clip {
            let (crop, activation) = (measures.clip_crop, self.clip_activation);
            networks.push(Network::clip(file, crop, activation, device)?);
        }
        Ok(networks)
    }

    /// Where features are kept.
    pub fn cache(&self) -> Option<PathBuf> {
        match self.no_cache {
            true => None,
            false => self.cache.clone().or_else(usual_cache),
        }
    }
}

/// Where features are kept unless the user says otherwise; nowhere without a home.
fn usual_cache() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let base = set("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(Path::new(&set("HOME")?).join(".cache")))?;
    Some(base.join("vqdiffusion").join("features"))
}
