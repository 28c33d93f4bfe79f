//! The pictures of a run and their features, block by block.
//!
//! ```text
//! samples/000123.png            picture 123, whole, with what repeats it
//! features/00000/               features of the first block's pictures
//! features/00000/pictures.json  what is complete: their hashes, in order
//! ```
//! A picture is a function of its number alone, so blocks can be made in any order, by any
//! process; what is there is not made again.

use std::ops::ControlFlow;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::ModelError;
use crate::evaluate::pictures::cache::PictureHash;
use crate::evaluate::pictures::captions;
use crate::evaluate::pictures::extract::{extract, Extractor, Setting};
use crate::evaluate::pictures::gathered::{Gathered, SetFeatures};
use crate::evaluate::pictures::set::PictureSet;
use crate::evaluate::pictures::ComparisonError;
use crate::files::{self, FileError};
use crate::pipeline::{Error, MadePicture, Maker, Request, SamplingStep, Selection, Subject};

/// Pictures of a block.
pub const BLOCK: usize = 250;
/// Bytes of the largest index of a block.
const LARGEST: u64 = 1 << 24;

/// A run of a protocol.
pub struct MadeSet<'a> {
    /// The run's folder.
    pub folder: &'a Path,
    /// What picture n should show.
    pub requests: &'a [Request],
    pub selection: Option<&'a Selection>,
    /// Seed of the protocol's first picture, from which candidates' seeds are counted.
    pub first_seed: u64,
    /// Whether pictures stay when their features are known.
    pub keep: bool,
}

/// What the caller hears while a run is made.
pub enum MadeEvent {
    /// So many pictures of the run are there.
    Pictures(usize),
    /// So many were there before, with their features.
    Known(usize),
}

/// What is complete of a block.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BlockIndex {
    /// SHA-256 of each picture's size and pixels.
    pictures: Vec<String>,
    size: [u32; 2],
    /// Pictures made, and how long it took, by the process that completed the block.
    made: usize,
    seconds: f64,
}

impl MadeSet<'_> {
    /// Blocks of the run.
    pub fn blocks(&self) -> usize {
        self.requests.len().div_ceil(BLOCK)
    }

    fn of_block(&self, block: usize) -> Range<usize> {
        block * BLOCK..self.requests.len().min((block + 1) * BLOCK)
    }

    fn samples(&self) -> PathBuf {
        self.folder.join("samples")
    }

    fn name(number: usize) -> PathBuf {
        format!("{number:06}.png").into()
    }

    fn features(&self, block: usize) -> PathBuf {
        self.folder.join("features").join(format!("{block:05}"))
    }

    fn index(&self, block: usize) -> PathBuf {
        self.features(block).join("pictures.json")
    }

    /// Makes the pictures of a block that are missing, and their features.
    ///
    /// # Errors
    ///
    /// A request that the model cannot show, a file that cannot be read or written;
    /// [`ComparisonError::Stopped`] if `stop` was set.
    pub fn complete(
        &self,
        block: usize,
        maker: &mut Maker,
        extractors: &mut [Extractor],
        setting: Setting,
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(MadeEvent),
    ) -> Result<(), ModelError> {
        let numbers = self.of_block(block);
        let folder = self.features(block);
        for extractor in extractors.iter_mut() {
            extractor.keep_in(&folder, setting.pillow)?;
        }
        if self.known(block, extractors).is_some() {
            on_event(MadeEvent::Known(numbers.end));
            return Ok(());
        }
        let samples = self.samples();
        std::fs::create_dir_all(&samples).map_err(FileError::writing(&samples))?;
        let (made, seconds) = self.make(numbers.clone(), maker, stop, on_event)?;
        let names: Vec<PathBuf> = numbers.clone().map(Self::name).collect();
        let set = PictureSet::of_files(&samples, names.clone());
        let features = extract(&set, extractors, setting, stop, &mut |_| ())?;
        let index = BlockIndex {
            pictures: features.hashes.iter().map(|h| files::hex(h)).collect(),
            size: features.size,
            made,
            seconds,
        };
        let path = self.index(block);
        let text = serde_json::to_vec(&index).map_err(|e| FileError::writing(&path)(e.into()))?;
        files::write(&path, text)?;
        if !self.keep {
            for name in names {
                let path = samples.join(name);
                std::fs::remove_file(&path).map_err(FileError::writing(&path))?;
            }
        }
        Ok(())
    }

    /// Makes the missing pictures of `numbers`: how many, and in how many seconds.
    fn make(
        &self,
        numbers: Range<usize>,
        maker: &mut Maker,
        stop: &AtomicBool,
        on_event: &mut dyn FnMut(MadeEvent),
    ) -> Result<(usize, f64), ModelError> {
        let start = Instant::now();
        let mut count = 0;
        for group in self.groups(numbers, maker.batch()) {
            let requests = &self.requests[group.clone()];
            let files: Vec<PathBuf> = group
                .clone()
                .map(|n| self.samples().join(Self::name(n)))
                .collect();
            if !files.iter().all(|file| file.exists()) {
                let mut observe = |_: SamplingStep| match stop.load(Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                };
                let made: Option<Vec<MadePicture>> = match self.selection {
                    None => maker.make(requests, &mut observe).map_err(Error::from)?,
                    Some(selection) => {
                        let candidates = selection.candidates(requests, self.first_seed);
                        selection.best(maker, &candidates, requests.len(), &mut observe)?
                    }
                };
                let made = made.ok_or(ComparisonError::Stopped)?;
                count += made.len();
                for (made, file) in made.iter().zip(&files) {
                    made.write_png(file)?;
                }
            }
            on_event(MadeEvent::Pictures(group.end));
            if stop.load(Ordering::Relaxed) {
                return Err(ComparisonError::Stopped.into());
            }
        }
        Ok((count, start.elapsed().as_secs_f64()))
    }

    /// The pictures of `numbers` that are made together: a batch, or where candidates are
    /// ranked, those of one subject.
    fn groups(&self, numbers: Range<usize>, batch: usize) -> Vec<Range<usize>> {
        let mut groups: Vec<Range<usize>> = Vec::new();
        for n in numbers {
            let joins = groups.last().is_some_and(|group| match self.selection {
                None => group.len() < batch,
                Some(_) => self.requests[group.start].subject == self.requests[n].subject,
            });
            match groups.last_mut() {
                Some(group) if joins => group.end = n + 1,
                _ => groups.push(n..n + 1),
            }
        }
        groups
    }

    /// The index of a block, if it is complete and the features of all its pictures are kept
    /// by `extractors`.
    fn known(&self, block: usize, extractors: &[Extractor]) -> Option<BlockIndex> {
        let text = files::read_text(&self.index(block), LARGEST).ok()?;
        let index: BlockIndex = serde_json::from_str(&text).ok()?;
        let complete = index.pictures.len() == self.of_block(block).len()
            && index.pictures.iter().all(|hash| {
                hash_of(hash).is_some_and(|hash| extractors.iter().all(|e| e.has(&hash)))
            });
        complete.then_some(index)
    }

    /// The features of all pictures, whose blocks are complete; and the seconds that one took
    /// to make, where that is known.
    ///
    /// # Errors
    ///
    /// A block that is not complete or damaged.
    pub fn gather(
        &self,
        extractors: &mut [Extractor],
        setting: Setting,
    ) -> Result<(SetFeatures, Option<f64>), ModelError> {
        let samples = self.samples();
        let mut gathered = Gathered::new(&samples, extractors);
        let (mut made, mut seconds) = (0, 0.0);
        for block in 0..self.blocks() {
            let damaged = || ComparisonError::Set {
                set: self.features(block),
                problem: "the features kept there are not complete; remove the folder and run \
                          again"
                    .into(),
            };
            for extractor in extractors.iter_mut() {
                extractor.keep_in(&self.features(block), setting.pillow)?;
            }
            let index = self.known(block, extractors).ok_or_else(damaged)?;
            made += index.made;
            seconds += index.seconds;
            for (n, hash) in self.of_block(block).zip(&index.pictures) {
                let name = Self::name(n).to_string_lossy().into_owned();
                let hash = hash_of(hash).ok_or_else(damaged)?;
                gathered.check_size(&name, index.size)?;
                for (place, extractor) in extractors.iter().enumerate() {
                    let values = extractor.kept(&hash).ok_or_else(damaged)?;
                    gathered.add(place, &values)?;
                }
                gathered.name(name, hash);
            }
        }
        Ok((
            gathered.finish()?,
            (made > 0).then(|| seconds / made as f64),
        ))
    }
}

impl MadeSet<'_> {
    /// Writes the list of the pictures and what they should show, as
    /// [`captions`] reads it.
    ///
    /// # Errors
    ///
    /// A file that cannot be written.
    pub fn write_captions(&self) -> Result<(), ModelError> {
        let mut list = String::new();
        for (n, request) in self.requests.iter().enumerate() {
            if let Subject::Text(caption) = &request.subject {
                let line = json!({"file": Self::name(n), "caption": caption, "seed": request.seed});
                list += &format!("{line}\n");
            }
        }
        match list.is_empty() {
            true => Ok(()),
            false => Ok(files::write(&self.samples().join(captions::LIST), list)?),
        }
    }
}

/// The bytes of 64 hexadecimal digits.
fn hash_of(text: &str) -> Option<PictureHash> {
    let mut hash = PictureHash::default();
    if text.len() != 2 * hash.len() || !text.is_ascii() {
        return None;
    }
    for (i, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * i..2 * i + 2], 16).ok()?;
    }
    Some(hash)
}
