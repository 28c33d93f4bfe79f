//! The features of a set, picture by picture.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::Tensor;

use super::cache::PictureHash;
use super::error::ComparisonError;
use super::extract::Extractor;
use super::networks::{Network, POOL, SPATIAL};
use crate::metrics::moments::BLOCK;
use crate::metrics::{MetricError, Moments};

/// What is known of a set after a pass.
pub struct SetFeatures {
    pub path: PathBuf,
    /// Names in the set, in order.
    pub names: Vec<String>,
    /// SHA-256 of each picture's size and pixels.
    pub hashes: Vec<PictureHash>,
    /// Width and height of every picture.
    pub size: [u32; 2],
    /// Features `[N, D]` f32 of each network; of Inception those of the last pooling.
    pub of: Vec<Tensor>,
    /// Moments of the features of sFID, if Inception is among the networks.
    pub spatial: Option<Moments>,
}

impl SetFeatures {
    /// SHA-256 over the hashes of the pictures in order.
    pub fn sha256(&self) -> String {
        let mut all = Sha256::new();
        self.hashes.iter().for_each(|hash| all.update(hash));
        crate::files::hex(&all.finalize())
    }
}

/// What a pass has found so far.
pub struct Gathered {
    path: PathBuf,
    names: Vec<String>,
    hashes: Vec<PictureHash>,
    first: Option<(String, [u32; 2])>,
    values: Vec<Vec<f32>>,
    widths: Vec<i64>,
    spatial: Option<Spatial>,
}

/// Features of sFID, a block at a time.
struct Spatial {
    moments: Moments,
    block: Vec<f32>,
    blocks: u64,
}

impl Spatial {
    fn add(&mut self, values: &[f32]) {
        self.block.extend(values);
        if self.block.len() as i64 == BLOCK * SPATIAL {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if !self.block.is_empty() {
            let rows = Tensor::from_slice(&self.block).view([-1, SPATIAL]);
            self.moments.add(self.blocks, &rows);
            self.blocks += 1;
            self.block.clear();
        }
    }
}

impl Gathered {
    /// Nothing yet of the set at `path`.
    pub fn new(path: &Path, extractors: &[Extractor]) -> Self {
        let is_inception = |e: &Extractor| matches!(e.network, Network::Inception(..));
        Gathered {
            path: path.to_path_buf(),
            names: Vec::new(),
            hashes: Vec::new(),
            first: None,
            values: extractors.iter().map(|_| Vec::new()).collect(),
            widths: extractors
                .iter()
                .map(|e| match is_inception(e) {
                    true => POOL,
                    false => e.network.width(),
                })
                .collect(),
            spatial: extractors.iter().any(is_inception).then(|| Spatial {
                moments: Moments::default(),
                block: Vec::new(),
                blocks: 0,
            }),
        }
    }

    /// Pictures that are complete.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// # Errors
    ///
    /// A size that is not the first picture's.
    pub fn check_size(&mut self, name: &str, size: [u32; 2]) -> Result<(), ComparisonError> {
        match &self.first {
            None => self.first = Some((name.to_string(), size)),
            Some((_, first_size)) if *first_size == size => {}
            Some((first, first_size)) => {
                return Err(ComparisonError::MixedSizes {
                    set: self.path.clone(),
                    first: first.clone(),
                    first_size: *first_size,
                    name: name.to_string(),
                    size,
                })
            }
        }
        Ok(())
    }

    /// Adds the features of the next picture by the network at `place`.
    ///
    /// # Errors
    ///
    /// Features that are not finite.
    pub fn add(&mut self, place: usize, values: &[f32]) -> Result<(), ComparisonError> {
        if values.iter().any(|value| !value.is_finite()) {
            return Err(ComparisonError::Metric {
                set: self.path.clone(),
                source: MetricError::NotFinite {
                    measure: "a network",
                },
            });
        }
        let (kept, rest) = values.split_at(self.widths[place] as usize);
        self.values[place].extend(kept);
        if let (false, Some(spatial)) = (rest.is_empty(), &mut self.spatial) {
            spatial.add(rest);
        }
        Ok(())
    }

    /// The picture whose features were added by all networks.
    pub fn name(&mut self, name: String, hash: PictureHash) {
        self.names.push(name);
        self.hashes.push(hash);
    }

    /// # Errors
    ///
    /// No pictures.
    pub fn finish(self) -> Result<SetFeatures, ComparisonError> {
        let Some((_, size)) = self.first else {
            return Err(ComparisonError::TooFew {
                set: self.path,
                found: 0,
                least: 1,
            });
        };
        let tensors = self.values.into_iter().zip(&self.widths);
        Ok(SetFeatures {
            path: self.path,
            size,
            of: tensors
                .map(|(values, &width)| Tensor::from_slice(&values).view([-1, width]))
                .collect(),
            spatial: self.spatial.map(|mut spatial| {
                spatial.flush();
                spatial.moments
            }),
            names: self.names,
            hashes: self.hashes,
        })
    }
}
