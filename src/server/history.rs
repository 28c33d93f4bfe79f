//! The pictures of the session, and those in the server's folder.

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

use super::id::random_id;
use super::jobs::{Job, Made};
use super::settings::{MOST_BODY, MOST_ENDED, MOST_KEPT, MOST_LISTED};
use crate::files;
use crate::picture::png_texts;
use crate::pipeline::Record;

/// Bytes of the session's pictures, at most.
const MOST_BYTES: usize = 256 << 20;

/// A picture in the folder.
#[derive(Clone, Debug)]
pub struct Filed {
    pub id: String,
    pub record: Record,
    /// Seconds since 1970.
    pub created: u64,
    path: PathBuf,
}

impl Filed {
    /// The file's bytes.
    pub fn png(&self) -> Option<Vec<u8>> {
        files::read(&self.path, MOST_BODY as u64).ok()
    }
}

/// A picture that can be asked for.
#[derive(Clone, Debug)]
pub enum Kept {
    Made(Arc<Made>),
    Filed(Box<Filed>),
}

#[derive(Default)]
struct State {
    made: VecDeque<Arc<Made>>,
    bytes: usize,
    /// Where the pictures of the session were written, by id.
    written: BTreeMap<String, PathBuf>,
    /// Files of other sessions by path; those that are no pictures of ours as none.
    filed: BTreeMap<PathBuf, Option<Filed>>,
    jobs: VecDeque<Arc<Job>>,
}

pub struct History {
    folder: Option<PathBuf>,
    state: Mutex<State>,
}

impl History {
    pub fn new(folder: Option<PathBuf>) -> Self {
        History {
            folder,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps `made`, in the folder too if there is one.
    pub fn keep(&self, made: &Arc<Made>) {
        let written = self.folder.as_ref().and_then(|folder| {
            let name = made.picture.record.request.file_name();
            let path = folder.join(format!("{}-{name}", made.id));
            // Not by its name, which has words of the prompt.
            let png = made.png().map_err(|e| e.to_string());
            let done =
                png.and_then(|png| files::write(&path, png).map_err(|e| e.source.to_string()));
            done.inspect_err(|problem| log::warn!("picture {} was not kept: {problem}", made.id))
                .ok()
                .map(|()| path)
        });
        let mut state = self.state();
        state.bytes += made.bytes();
        state.made.push_back(made.clone());
        state
            .written
            .extend(written.map(|path| (made.id.clone(), path)));
        while state.made.len() > MOST_KEPT || state.bytes > MOST_BYTES {
            let Some(oldest) = state.made.pop_front() else {
                break;
            };
            state.bytes -= oldest.bytes();
            // In the folder it is found again.
            state.written.remove(&oldest.id);
        }
    }

    /// Keeps a job for those who come back to it.
    pub fn keep_job(&self, job: &Arc<Job>) {
        let mut state = self.state();
        state.jobs.push_back(job.clone());
        let ended = state.jobs.iter().filter(|job| job.has_ended()).count();
        for _ in MOST_ENDED..ended {
            let oldest = state.jobs.iter().position(|job| job.has_ended());
            oldest.map(|oldest| state.jobs.remove(oldest));
        }
    }

    pub fn job(&self, id: &str) -> Option<Arc<Job>> {
        self.state().jobs.iter().find(|job| job.id == id).cloned()
    }

    /// The picture called `id`.
    pub fn find(&self, id: &str) -> Option<Kept> {
        let state = self.state();
        let made = state.made.iter().find(|made| made.id == id);
        if let Some(made) = made {
            return Some(Kept::Made(made.clone()));
        }
        let mut filed = state.filed.values().flatten();
        filed
            .find(|filed| filed.id == id)
            .cloned()
            .map(|filed| Kept::Filed(Box::new(filed)))
    }

    /// The pictures of the session, the newest first.
    pub fn session(&self) -> Vec<Arc<Made>> {
        self.state().made.iter().rev().cloned().collect()
    }

    /// The pictures of the folder that are not of the session, the newest first.
    pub fn folder(&self) -> Vec<Filed> {
        let Some(folder) = &self.folder else {
            return Vec::new();
        };
        let files = newest(folder);
        let mut state = self.state();
        let session: Vec<PathBuf> = state.written.values().cloned().collect();
        state
            .filed
            .retain(|path, _| files.iter().any(|(file, _)| file == path));
        let others = files.iter().filter(|(path, _)| !session.contains(path));
        let mut found: Vec<Filed> = Vec::new();
        for (path, created) in others {
            let known = state.filed.entry(path.clone());
            let filed = known.or_insert_with(|| read(path, *created));
            found.extend(filed.clone());
        }
        found
    }

    /// Forgets the picture called `id`, its file too; whether there was one.
    pub fn remove(&self, id: &str) -> bool {
        let mut state = self.state();
        let place = state.made.iter().position(|made| made.id == id);
        let removed = place.and_then(|place| state.made.remove(place));
        if let Some(made) = &removed {
            state.bytes -= made.bytes();
        }
        let filed = state.filed.values().flatten().find(|filed| filed.id == id);
        let path = filed.map(|filed| filed.path.clone());
        let path = path.or_else(|| state.written.remove(id));
        if let Some(path) = &path {
            state.filed.remove(path);
            if let Err(error) = std::fs::remove_file(path) {
                log::warn!("the file of picture {id} could not be removed: {error}");
            }
        }
        removed.is_some() || path.is_some()
    }
}

/// The newest PNGs in `folder`, with their times.
fn newest(folder: &Path) -> Vec<(PathBuf, u64)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut found: Vec<(PathBuf, u64)> = entries
        .filter(|entry| entry.path().extension().is_some_and(|end| end == "png"))
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let since = metadata.modified().ok()?.duration_since(UNIX_EPOCH).ok()?;
            Some((entry.path(), since.as_secs()))
        })
        .collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| b.0.cmp(&a.0)));
    found.truncate(MOST_LISTED);
    found
}

/// The picture at `path`, if this program made it.
fn read(path: &Path, created: u64) -> Option<Filed> {
    let bytes = files::read(path, MOST_BODY as u64).ok()?;
    let record = Record::of_texts(&png_texts(&bytes).ok()?, path).ok()?;
    Some(Filed {
        id: random_id(),
        record,
        created,
        path: path.to_path_buf(),
    })
}
