//! `vqdiffusion serve`: a page and an API for pictures, and for watching runs.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args};

use super::arguments::whole;
use super::choices;
use super::compute::ComputeArgs;
use super::model_source::ModelSource;
use super::progress::say;
use super::signals::{stop_on_signals, STOPPED};
use super::{failure, CliResult};
use crate::files::FileError;
use crate::pipeline::useful_threads;
use crate::server::{serve, ServedModel, Settings};
use crate::torch::device::Precision;

/// Where the token is read from if it is not given: command lines are seen by others.
const TOKEN: &str = "VQDIFFUSION_TOKEN";

const EXAMPLES: &str = "\
Examples:
  vqdiffusion serve --checkpoint checkpoints/emoji.safetensors
  vqdiffusion serve --runs runs
  VQDIFFUSION_TOKEN=... vqdiffusion serve --checkpoint model.safetensors --host 0.0.0.0 \\
      --allow-host pictures.example --out pictures";

#[derive(Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("served").required(true).multiple(true).args(["checkpoint", "runs"])))]
pub struct ServeArgs {
    /// Model: an official .pth (whole or split), our .safetensors, a diffusers folder, or
    /// its name on the Hugging Face Hub.
    #[arg(long, value_name = "PATH")]
    checkpoint: Option<PathBuf>,

    #[command(flatten)]
    model: ModelSource,

    /// Folder of training runs to watch, or of one; several times for several.
    #[arg(long, value_name = "DIR")]
    runs: Vec<PathBuf>,

    /// Address to listen on. Others than this machine's own need a token.
    #[arg(long, default_value = "127.0.0.1")]
    host: String,

    /// Port to listen on; 0 lets the system choose.
    #[arg(long, default_value_t = 7860)]
    port: u16,

    /// What clients must send, as a Bearer token or the password of Basic authentication
    /// [default: the environment variable VQDIFFUSION_TOKEN; none on this machine's own
    /// address].
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,

    /// Serve everybody who reaches the address.
    #[arg(long, conflicts_with = "token")]
    no_token: bool,

    /// A name that clients may call this server by, besides addresses, localhost, *.internal
    /// and this machine's own; several times for several.
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,

    /// Another site whose pages may use the API, such as https://pictures.example; several
    /// times for several.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<String>,

    /// Seconds that jobs have to finish when a signal ends the server.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = whole::<u64>(0..=86_400))]
    grace: u64,

    /// Pictures made together on a GPU, of alike jobs; on the CPU they are made one after
    /// the other.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch_size: u32,

    /// Number format of the network [default: bf16 where the device computes in it
    /// natively, else f32].
    #[arg(long, value_parser = choices::precision())]
    dtype: Option<Precision>,

    #[command(flatten)]
    compute: ComputeArgs,

    /// Folder to keep the pictures in, and to show; made if missing. Without one they are
    /// gone with the server.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(args: &ServeArgs) -> CliResult {
    let token = args.token()?;
    for folder in &args.runs {
        if !folder.is_dir() {
            return Err(format!("--runs {}: is not a folder", folder.display()).into());
        }
    }
    let settings = Settings {
        host: args.host.clone(),
        port: args.port,
        token,
        allow_hosts: args.allow_host.clone(),
        allow_origins: args.allow_origin.clone(),
        grace: Duration::from_secs(args.grace),
        batch_size: args.batch_size as usize,
        out: args.out.clone(),
        runs: args.runs.clone(),
    };
    let model = args.served_model()?;
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).map_err(FileError::writing(out))?;
    }
    let stop = stop_on_signals()?;
    failure::command("serving", "lower --batch-size");
    let ended = serve(&settings, model, &stop, |address| {
        announce(address, &settings)
    })?;
    if ended.given_up > 0 {
        let jobs = ended.given_up;
        say(format_args!(
            "{jobs} jobs were given up after --grace {} s",
            args.grace
        ));
        return Ok(ExitCode::from(STOPPED));
    }
    Ok(ExitCode::SUCCESS)
}

impl ServeArgs {
    fn served_model(&self) -> Result<Option<ServedModel>, Box<dyn std::error::Error>> {
        let Some(path) = &self.checkpoint else {
            return Ok(None);
        };
        let device = self.compute.set_up()?;
        let checkpoint = self.model.open(path)?;
        self.compute.limit_threads(&checkpoint.config);
        Ok(Some(ServedModel {
            name: name_of(path),
            threads: self.compute.threads(|| useful_threads(&checkpoint.config)),
            checkpoint,
            device,
            precision: self.dtype.unwrap_or_else(|| Precision::native(device)),
        }))
    }

    /// The token, of which there must be one, or a word that there is none, where others
    /// reach the address.
    fn token(&self) -> Result<Option<String>, String> {
        let of_environment = || std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let token = match self.no_token {
            true => None,
            false => self.token.clone().or_else(of_environment),
        };
        if token
            .as_deref()
            .is_some_and(|token| token.trim() != token || token.is_empty())
        {
            return Err("--token: is empty or begins or ends with a space".into());
        }
        if token.is_none() && !self.no_token && !is_own(&self.host) {
            return Err(format!(
                "--host {}: others can reach this address; give --token TOKEN (or {TOKEN} in \
                 the environment), or --no-token to serve everybody",
                self.host
            ));
        }
        Ok(token)
    }
}

/// Whether only this machine reaches `host`.
fn is_own(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// What clients call the model: the file's name without its ending.
fn name_of(path: &Path) -> String {
    let name = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let name = name.file_stem().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

fn announce(address: SocketAddr, settings: &Settings) {
    // A reader that went away does not stop the server.
    let mut out = std::io::stdout();
    let _ = writeln!(out, "http://{address}");
    let _ = out.flush();
    if settings.token.is_some() {
        say(format_args!(
            "the page asks for the token, or takes it from http://{address}/#TOKEN"
        ));
    } else if !is_own(&settings.host) {
        say(format_args!(
            "WARNING: --no-token: everybody who reaches {address} may make pictures here and \
             see and delete those of all others"
        ));
    }
}
