//! A model's pictures of one set, made and kept for a measure.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde::Serialize;

use super::error::EvaluateError;
use crate::files::{self, FileError};
use crate::pipeline::{Error, MadePicture, Maker, Request};

/// The list of a folder of pictures: a JSON object a line.
pub const LIST: &str = "captions.jsonl";

/// Makes the pictures of `requests`, writes each to `folder` as a PNG that can be made
/// again, and then the folder's list with the line that `line` gives for the place and
/// the file of each. `take` gets every picture with its path. `stop` ends the work after
/// the pictures being made; the list has those that were. The seconds that making them took,
/// files left out.
///
/// # Errors
///
/// A request that the model cannot show, a file that cannot be written, what `take` says.
pub fn make_set<L: Serialize>(
    maker: &mut Maker,
    requests: &[Request],
    folder: &Path,
    stop: &AtomicBool,
    line: impl Fn(usize, PathBuf) -> L,
    take: &mut dyn FnMut(MadePicture, PathBuf) -> Result<(), EvaluateError>,
) -> Result<f64, EvaluateError> {
    std::fs::create_dir_all(folder).map_err(FileError::writing(folder))?;
    let path = folder.join(LIST);
    let mut list = Vec::new();
    let (mut place, mut seconds) = (0, 0.0);
    for batch in requests.chunks(maker.batch()) {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let start = Instant::now();
        let made = maker.make(batch, &mut |_| ControlFlow::Continue(()));
        seconds += start.elapsed().as_secs_f64();
        for made in made.map_err(Error::from)?.into_iter().flatten() {
            let name = made.record.request.file_name();
            let file = folder.join(&name);
            made.write_png(&file)?;
            serde_json::to_writer(&mut list, &line(place, name.into()))
                .map_err(|e| FileError::writing(&path)(e.into()))?;
            list.push(b'\n');
            take(made, file)?;
            place += 1;
        }
    }
    files::write(&path, list)?;
    Ok(seconds)
}
