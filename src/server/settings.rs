//! How a server is set up, and its limits.

use std::path::PathBuf;
use std::time::Duration;

use crate::checkpoint::Checkpoint;
use crate::torch::device::Precision;

/// Bytes of a request's body, at most.
pub const MOST_BODY: usize = 20 << 20;
/// Pixels of a picture that is sent, at most.
pub const MOST_PIXELS: u64 = 16_000_000;
/// Characters of a prompt, at most.
pub const MOST_PROMPT: usize = 2_000;
/// Pictures of a job, at most.
pub const MOST_PICTURES: usize = 10;
/// Pixels of the longer side that a picture is scaled to, at most.
pub const LARGEST_SIDE: u32 = 4_096;
/// Jobs that wait or run, at most.
pub const MOST_JOBS: usize = 64;
/// Connections, streams among them, at most.
pub const MOST_CONNECTIONS: usize = 512;
/// Pictures of the session that are kept, at most; the oldest go first.
pub const MOST_KEPT: usize = 500;
/// Pictures of the folder that are listed, at most: the newest.
pub const MOST_LISTED: usize = 1_000;
/// Jobs whose events are kept after their end, at most.
pub const MOST_ENDED: usize = 16;
/// Time that a client has to send a request's head.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Time that a client has to send a request's body.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// Time between the comments that keep an idle stream open.
pub const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What to listen on.
    pub host: String,
    /// 0 lets the system choose.
    pub port: u16,
    /// What clients must send, if anything.
    pub token: Option<String>,
    /// Names that clients may call the server by, besides the usual ones.
    pub allow_hosts: Vec<String>,
    /// Other sites that may use the API.
    pub allow_origins: Vec<String>,
    /// Time that jobs have to finish when the server ends.
    pub grace: Duration,
    /// Pictures made together on a GPU.
    pub batch_size: usize,
    /// A folder for the pictures.
    pub out: Option<PathBuf>,
    /// Folders of training runs.
    pub runs: Vec<PathBuf>,
}

/// The model that a server serves.
pub struct ServedModel {
    /// What clients call it.
    pub name: String,
    pub checkpoint: Checkpoint,
    pub device: tch::Device,
    pub precision: Precision,
    /// Threads for CPU work.
    pub threads: i32,
}
