//! The networks that see pictures, each with the way it sees them.

use std::path::Path;

use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::error::ComparisonError;
use crate::clip::ClipActivation;
use crate::metrics::networks::dinov2::{self, PositionTable};
use crate::metrics::networks::inception::{self, Inception};
use crate::metrics::networks::weights::Loaded;
use crate::metrics::networks::{Clip, Dinov2};
use crate::metrics::preparation::{ClipCrop, DinoResize, InceptionResize};
use crate::picture::{Picture, Pillow};

/// A network for features, and how pictures come to it.
pub enum Network {
    Inception(Loaded<Inception>, InceptionResize),
    Dinov2(Loaded<Dinov2>, DinoResize, PositionTable),
    Clip(Loaded<Clip>, ClipCrop),
}

/// How pictures come to a network, with the pixels a side that CLIP takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Preparation {
    Inception(InceptionResize),
    Dinov2(DinoResize),
    Clip(ClipCrop, u32),
}

impl Preparation {
    /// `[3, side, side]` f32 on the CPU.
    pub fn of(self, picture: &Picture, pillow: Pillow) -> Tensor {
        match self {
            Preparation::Inception(resize) => resize.prepare(picture, pillow),
            Preparation::Dinov2(resize) => resize.prepare(picture, dinov2::SIDE, pillow),
            Preparation::Clip(crop, side) => crop.prepare(picture, side, pillow),
        }
    }
}

/// What a report says of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Described {
    pub network: &'static str,
    pub file: std::path::PathBuf,
    /// SHA-256 of the weights.
    pub weights_sha256: String,
    /// How pictures come to it.
    pub preparation: String,
}

/// Columns of Inception's features: the last pooling, then those of sFID.
pub const POOL: i64 = inception::POOL;
pub const SPATIAL: i64 = inception::SPATIAL[0] * inception::SPATIAL[1] * inception::SPATIAL[2];

impl Network {
    pub fn inception(
        file: &Path,
        resize: InceptionResize,
        device: Device,
    ) -> Result<Self, ComparisonError> {
        Ok(Network::Inception(Inception::load(file, device)?, resize))
    }

    pub fn dinov2(
        file: &Path,
        resize: DinoResize,
        positions: PositionTable,
        device: Device,
    ) -> Result<Self, ComparisonError> {
        let network = Dinov2::load(file, positions, device)?;
        Ok(Network::Dinov2(network, resize, positions))
    }

    pub fn clip(
        file: &Path,
        crop: ClipCrop,
        activation: Option<ClipActivation>,
        device: Device,
    ) -> Result<Self, ComparisonError> {
        Ok(Network::Clip(Clip::load(file, activation, device)?, crop))
    }

    pub fn described(&self) -> Described {
        fn of<T>(network: &'static str, loaded: &Loaded<T>, preparation: String) -> Described {
            Described {
                network,
                file: loaded.path.clone(),
                weights_sha256: loaded.fingerprint.clone(),
                preparation,
            }
        }
        match self {
            Network::Inception(loaded, resize) => of("Inception", loaded, name(resize)),
            Network::Dinov2(loaded, resize, positions) => of(
                "DINOv2",
                loaded,
                format!("{}, positions as {}", name(resize), name(positions)),
            ),
            Network::Clip(loaded, crop) => {
                let config = loaded.network.vision().config();
                let text = format!(
                    "{}, {} pixels, {}",
                    name(crop),
                    config.picture,
                    name(&config.activation)
                );
                of("CLIP", loaded, text)
            }
        }
    }

    /// What the features of a picture depend on besides it.
    pub fn key(&self, pillow: Pillow) -> String {
        let described = self.described();
        format!(
            "{} {} {}, Pillow {}",
            described.network,
            described.weights_sha256,
            described.preparation,
            name(&pillow)
        )
    }

    /// Features of a picture.
    pub fn width(&self) -> i64 {
        match self {
            Network::Inception(..) => POOL + SPATIAL,
            Network::Dinov2(loaded, ..) => loaded.network.config().width,
            Network::Clip(loaded, _) => loaded.network.vision().config().embedding,
        }
    }

    /// What the network sees of a picture.
    pub fn preparation(&self) -> Preparation {
        match self {
            Network::Inception(_, resize) => Preparation::Inception(*resize),
            Network::Dinov2(_, resize, _) => Preparation::Dinov2(*resize),
            Network::Clip(loaded, crop) => {
                Preparation::Clip(*crop, loaded.network.vision().config().picture as u32)
            }
        }
    }

    /// Features `[B, width]` f32 on the CPU of `images` `[B, 3, side, side]`.
    pub fn features(&self, images: &Tensor, device: Device) -> Tensor {
        let images = images.to_device(device);
        let features = match self {
            Network::Inception(loaded, _) => {
                let features = loaded.network.forward(&images);
                let spatial = features.spatial.flatten(1, -1);
                Tensor::cat(&[features.pool, spatial], 1)
            }
            Network::Dinov2(loaded, ..) => loaded.network.forward(&images),
            Network::Clip(loaded, _) => loaded.network.images(&images).embedding,
        };
        features.to_device(Device::Cpu).to_kind(Kind::Float)
    }
}

/// The option's value as the command line spells it.
fn name(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        other => format!("{other:?}"),
    }
}
