//! Training runs: their logs as they grow, and their sample sheets. Folders come from the
//! command line alone; clients know runs by ids.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::files::{self, sha256};
use crate::train::engine::log::{sheet_name, sheet_step, JSON_LINES};

/// Folders below a given one that are looked into.
const DEEPEST: usize = 3;
/// Runs that are listed, at most.
const MOST_RUNS: usize = 200;
/// Folders that are looked at, at most.
const MOST_FOLDERS: usize = 5_000;
/// Bytes of a log that are given at once.
const MOST_BYTES: u64 = 1 << 20;
/// Bytes of a sheet, at most.
const MOST_SHEET: u64 = 64 << 20;

/// The folders that runs are looked for in.
#[derive(Debug)]
pub struct Runs(Vec<PathBuf>);

struct Found {
    id: String,
    name: String,
    path: PathBuf,
}

impl Runs {
    pub fn new(folders: Vec<PathBuf>) -> Self {
        Runs(folders)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The runs, by name.
    fn found(&self) -> Vec<Found> {
        let mut found = Vec::new();
        let mut left = MOST_FOLDERS;
        for root in &self.0 {
            look(root, root, DEEPEST, &mut left, &mut found);
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// The runs as they are now.
    pub fn list(&self) -> Vec<Run> {
        let described = self.found().into_iter().map(|found| {
            let log = found.path.join(JSON_LINES).metadata();
            let changed = log.as_ref().ok().and_then(|log| log.modified().ok());
            let changed = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            let entries = std::fs::read_dir(&found.path).into_iter().flatten();
            let names = entries.flatten().map(|entry| entry.file_name());
            let mut sheets: Vec<u64> = names.filter_map(|name| sheet_step(&name)).collect();
            sheets.sort_unstable();
            Run {
                id: found.id,
                name: found.name,
                changed: changed.map_or(0, |since| since.as_secs()),
                bytes: log.map_or(0, |log| log.len()),
                sheets,
            }
        });
        described.collect()
    }

    /// The lines of a run's log from a byte on, if there is such a run.
    pub fn lines(&self, id: &str, after: u64) -> Option<Lines> {
        lines_after(&self.find(id)?.join(JSON_LINES), after).ok()
    }

    /// The sample sheet of a step, if there is one.
    pub fn sheet(&self, id: &str, step: u64) -> Option<Vec<u8>> {
        files::read(&self.find(id)?.join(sheet_name(step)), MOST_SHEET).ok()
    }

    fn find(&self, id: &str) -> Option<PathBuf> {
        let found = self.found().into_iter().find(|run| run.id == id);
        found.map(|run| run.path)
    }
}

fn look(root: &Path, at: &Path, deep: usize, left: &mut usize, found: &mut Vec<Found>) {
    if found.len() >= MOST_RUNS || *left == 0 {
        return;
    }
    *left -= 1;
    if at.join(JSON_LINES).is_file() {
        let within = at.strip_prefix(root).unwrap_or(at);
        let last = root.canonicalize().unwrap_or_else(|_| root.to_path_buf());
        let name = match within.as_os_str().is_empty() {
            true => last
                .file_name()
                .map(|name| name.to_string_lossy().into_owned()),
            false => Some(within.display().to_string()),
        };
        let id = sha256(at.as_os_str().as_encoded_bytes())[..16].to_string();
        if found.iter().all(|run| run.id != id) {
            found.push(Found {
                id,
                name: name.unwrap_or_else(|| "run".into()),
                path: at.to_path_buf(),
            });
        }
        return;
    }
    if deep == 0 {
        return;
    }
    let entries = std::fs::read_dir(at).into_iter().flatten().flatten();
    // Links are not followed, which might lead out or in circles.
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    for folder in folders {
        look(root, &folder.path(), deep - 1, left, found);
    }
}

/// A training run.
#[derive(Serialize, ToSchema)]
pub struct Run {
    pub id: String,
    /// Its folder within the one that was given.
    pub name: String,
    /// Seconds since 1970 of the last line of its log.
    pub changed: u64,
    /// Bytes of the log.
    pub bytes: u64,
    /// Steps that there are sample sheets of.
    pub sheets: Vec<u64>,
}

/// Whole lines of a log.
#[derive(Serialize, ToSchema)]
pub struct Lines {
    /// Where to go on.
    pub next: u64,
    /// Whether the log was cut meanwhile, so that all earlier lines are void: the run was
    /// resumed.
    pub restarted: bool,
    /// Whether there is more already.
    pub more: bool,
    pub lines: Vec<Value>,
}

fn lines_after(path: &Path, after: u64) -> std::io::Result<Lines> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    // A log that was cut and has grown past the place again is known by what is before it.
    let mut restarted = after > length;
    if !restarted && after > 0 {
        file.seek(SeekFrom::Start(after - 1))?;
        let mut before = [0];
        file.read_exact(&mut before)?;
        restarted = before != *b"\n";
    }
    let from = if restarted { 0 } else { after };
    file.seek(SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes)?;
    let whole = bytes
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |end| end + 1);
    // A line longer than all that is given at once is no line of a log.
    let whole = match whole {
        0 if bytes.len() as u64 == MOST_BYTES => bytes.len(),
        whole => whole,
    };
    let lines = bytes[..whole].split(|&b| b == b'\n');
    let next = from + whole as u64;
    Ok(Lines {
        next,
        restarted,
        more: bytes.len() as u64 == MOST_BYTES && next < length,
        lines: lines
            .filter_map(|line| serde_json::from_slice(line).ok())
            .collect(),
    })
}
