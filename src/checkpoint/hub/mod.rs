//! Models by their name on the Hugging Face Hub.
//!
//! The cache is the one that the Python libraries use (`cache`). A model that
//! is whole in it is taken from there without asking the hub; `HF_HUB_OFFLINE` forbids to
//! ask at all. `HF_TOKEN`, else the token that `hf auth login` keeps, is sent along;
//! `HF_ENDPOINT` names another hub.

mod cache;
mod error;

use std::path::{Path, PathBuf};

use hf_hub::api::sync::{ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};

pub use error::{HubError, HubProblem};

use super::diffusers::{is_folder, missing_file, wanted_files, INDEX};

const OFFLINE: [&str; 2] = ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"];

/// A model on the hub: `owner/name`, with `@revision` (a branch, tag or commit) for another
/// than `main`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    name: String,
    revision: String,
}

impl HubName {
    /// What `path` names on the hub, if it is no path of this machine.
    pub fn parse(path: &Path) -> Option<Self> {
        if path.exists() {
            return None;
        }
        let text = path.to_str()?;
        let (name, revision) = text.split_once('@').unwrap_or((text, "main"));
        let allowed = |part: &str, more: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        let (owner, model) = name.split_once('/')?;
        // Files of a model never are names of one.
        let is_file = ["pth", "pt", "ckpt", "bin", "safetensors"]
            .iter()
            .any(|ending| model.ends_with(&format!(".{ending}")) || model.contains(".pth_"));
        let valid = allowed(owner, "-_.") && allowed(model, "-_.") && allowed(revision, "-_./");
        (valid && !is_file && !Path::new(owner).exists()).then(|| HubName {
            name: name.to_string(),
            revision: revision.to_string(),
        })
    }

    /// The folder of the model in the cache, brought there if it is not whole.
    ///
    /// # Errors
    ///
    /// No connection, no such model or no permission, a repository that is no
    /// `VQDiffusionPipeline`, or offline mode with a model that is not whole.
    pub fn folder(&self) -> Result<PathBuf, HubError> {
        let root = cache::root();
        let found = cache::snapshot(&cache::folder_of(&root, &self.name), &self.revision);
        let lacks = match found.map_err(|source| self.error(source))? {
            Some(folder) if is_folder(&folder) => match missing_file(&folder) {
                None => return Ok(folder),
                Some(lacks) => lacks,
            },
            _ => INDEX.to_string(),
        };
        if let Some(variable) = OFFLINE.into_iter().find(|variable| is_set(variable)) {
            return Err(self.error(HubProblem::Offline {
                variable,
                cache: root,
                lacks,
            }));
        }
        let repo = Repo::with_revision(self.name.clone(), RepoType::Model, self.revision.clone());
        self.download(Cache::new(root), repo)
    }

    fn download(&self, cache: Cache, repo: Repo) -> Result<PathBuf, HubError> {
        let failed = |action: String, e: ApiError| {
            let hint = match &e {
                ApiError::RequestError(inner) => match inner.as_ref() {
                    ureq::Error::StatusCode(401 | 403 | 404) => {
                        " (no such model, or a token is needed: HF_TOKEN)"
                    }
                    ureq::Error::StatusCode(_) => "",
                    _ => " (is there a network? a whole copy in the cache, or a folder, works without)",
                },
                _ => "",
            };
            self.error(HubProblem::Request {
                action,
                source: Box::new(e),
                hint,
            })
        };
        let mut builder = ApiBuilder::from_cache(cache);
        if let Ok(endpoint) = std::env::var("HF_ENDPOINT") {
            builder = builder.with_endpoint(endpoint);
        }
        if let Some(token) = cache::token() {
            builder = builder.with_token(Some(token));
        }
        let api = builder
            .build()
            .map_err(|e| failed("cannot start".into(), e))?
            .repo(repo);
        let info = api
            .info()
            .map_err(|e| failed("cannot ask the hub".into(), e))?;
        let files: Vec<String> = info.siblings.into_iter().map(|s| s.rfilename).collect();
        if !files.iter().any(|file| file == INDEX) {
            return Err(self.error(HubProblem::NoPipeline(INDEX)));
        }
        let mut folder = PathBuf::new();
        for file in wanted_files(&files) {
            let path = api
                .get(file)
                .map_err(|e| failed(format!("cannot bring {file}"), e))?;
            if file == INDEX {
                folder = path.parent().map(Path::to_path_buf).unwrap_or_default();
            }
        }
        Ok(folder)
    }

    fn error(&self, source: HubProblem) -> HubError {
        HubError {
            name: match self.revision.as_str() {
                "main" => self.name.clone(),
                revision => format!("{}@{revision}", self.name),
            },
            source,
        }
    }
}

/// Whether a variable is set the way Python's hub library reads switches.
fn is_set(variable: &str) -> bool {
    std::env::var(variable)
        .is_ok_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str()))
}
