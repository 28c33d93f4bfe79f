//! The cache of the Hugging Face Hub on this machine, found as Python's `huggingface_hub`
//! finds it: `HF_HUB_CACHE`, else `HUGGINGFACE_HUB_CACHE`, else `hub` in `HF_HOME`, else
//! `huggingface/hub` in `XDG_CACHE_HOME`, else in `~/.cache`.
//!
//! In it a model has a folder `models--owner--name`: `refs/` holds the commit of every
//! branch asked for, `snapshots/` a folder of links for every commit.

use std::env;
use std::path::{Component, Path, PathBuf};

use super::super::diffusers;
use super::error::HubProblem;
use crate::files;

/// Where the cache is.
pub fn root() -> PathBuf {
    let direct = ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"];
    direct
        .into_iter()
        .find_map(path_in)
        .unwrap_or_else(|| home().join("hub"))
}

/// The token to send along, if there is one.
pub fn token() -> Option<String> {
    let variables = ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"];
    let given = variables.into_iter().find_map(|name| env::var(name).ok());
    let kept = || {
        let path = path_in("HF_TOKEN_PATH").unwrap_or_else(|| home().join("token"));
        files::read_text(&path, 1 << 16).ok()
    };
    let token = given.or_else(kept)?.trim().to_string();
    (!token.is_empty()).then_some(token)
}

fn home() -> PathBuf {
    path_in("HF_HOME").unwrap_or_else(|| {
        let caches = path_in("XDG_CACHE_HOME").unwrap_or_else(|| expanded("~/.cache"));
        caches.join("huggingface")
    })
}

/// The path in a variable that is set and not empty.
fn path_in(variable: &str) -> Option<PathBuf> {
    let value = env::var_os(variable).filter(|value| !value.is_empty())?;
    Some(match value.to_str() {
        Some(text) => expanded(text),
        None => value.into(),
    })
}

/// `text` with the home folder for a first `~` and the values of variables for `$NAME` and
/// `${NAME}`.
fn expanded(text: &str) -> PathBuf {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let name = &rest[at + 1..];
        let (name, end) = match name
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
        {
            Some((name, _)) => (name, at + name.len() + 3),
            None => {
                let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
                let name = &name[..name.find(is_end).unwrap_or(name.len())];
                (name, at + 1 + name.len())
            }
        };
        match env::var(name) {
            Ok(value) if !name.is_empty() => out.push_str(&value),
            _ => out.push_str(&rest[at..end]),
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    let path = PathBuf::from(out);
    files::expand_home(&path).unwrap_or(path)
}

/// The folder of the model `name` (`owner/name`).
pub fn folder_of(cache: &Path, name: &str) -> PathBuf {
    cache.join(format!("models--{}", name.replace('/', "--")))
}

/// Fewest digits by which a commit may be named.
const SHORTEST_COMMIT: usize = 7;

/// The snapshot of `revision` in a model's `folder`: of the commit that a branch or tag was
/// at when it was asked for, or of a commit, which may be shortened. Where files were copied
/// without `refs`, `main` is the only snapshot there is, or the folder itself.
///
/// # Errors
///
/// A commit or a branch that may be one of several; a reference that is none.
pub fn snapshot(folder: &Path, revision: &str) -> Result<Option<PathBuf>, HubProblem> {
    let snapshots = folder.join("snapshots");
    let reference = folder.join("refs").join(revision);
    if reference.is_file() {
        let commit = files::read_text(&reference, 1 << 12)?;
        let commit = commit.trim();
        let mut parts = Path::new(commit).components();
        if !matches!(
            (parts.next(), parts.next()),
            (Some(Component::Normal(_)), None)
        ) {
            return Err(HubProblem::NoCommit(reference));
        }
        let named = snapshots.join(commit);
        if named.is_dir() {
            return Ok(Some(named));
        }
    }
    let mut commits: Vec<String> = match std::fs::read_dir(&snapshots) {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| snapshots.join(name).is_dir())
            .collect(),
        Err(_) => Vec::new(),
    };
    commits.sort();
    if let Some(exact) = commits.iter().find(|commit| *commit == revision) {
        return Ok(Some(snapshots.join(exact)));
    }
    if revision == "main" {
        return match commits.as_slice() {
            [] if diffusers::is_folder(folder) => Ok(Some(folder.to_path_buf())),
            [] => Ok(None),
            [only] => {
                log::info!("{}: no refs/main; taking {only}", folder.display());
                Ok(Some(snapshots.join(only)))
            }
            _ => Err(HubProblem::NoMain {
                folder: folder.to_path_buf(),
                commits,
            }),
        };
    }
    let is_commit =
        revision.len() >= SHORTEST_COMMIT && revision.bytes().all(|b| b.is_ascii_hexdigit());
    commits.retain(|commit| is_commit && commit.starts_with(revision));
    match commits.as_slice() {
        [] => Ok(None),
        [only] => Ok(Some(snapshots.join(only))),
        _ => Err(HubProblem::Ambiguous(commits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        folder
    }

    #[test]
    fn revisions_are_branches_and_commits() {
        let folder = with(&[
            ("refs/main", "aaaaaaa1\n"),
            ("refs/pr/1", "bbbbbbb2"),
            ("snapshots/aaaaaaa1/x", ""),
            ("snapshots/bbbbbbb2/x", ""),
            ("snapshots/bbbbbbb3/x", ""),
        ]);
        let at = |revision: &str| snapshot(folder.path(), revision).map_err(|e| e.to_string());
        let found = |commit: &str| Ok(Some(folder.path().join("snapshots").join(commit)));
        assert_eq!(at("main"), found("aaaaaaa1"));
        assert_eq!(at("pr/1"), found("bbbbbbb2"));
        assert_eq!(at("bbbbbbb3"), found("bbbbbbb3"));
        assert_eq!(at("aaaaaaa"), found("aaaaaaa1"));
        assert_eq!(at("aaa"), Ok(None));
        assert_eq!(at("other"), Ok(None));
        assert!(at("bbbbbbb").unwrap_err().contains("bbbbbbb2 or bbbbbbb3"));
    }

    #[test]
    fn copies_without_references_are_found() {
        let one = with(&[("snapshots/c1/x", "")]);
        let found = snapshot(one.path(), "main").unwrap();
        assert_eq!(found, Some(one.path().join("snapshots/c1")));
        let two = with(&[("snapshots/c1/x", ""), ("snapshots/c2/x", "")]);
        assert!(snapshot(two.path(), "main")
            .unwrap_err()
            .to_string()
            .contains("@c1 or @c2"));
        let flat = with(&[("model_index.json", "{}")]);
        let found = snapshot(flat.path(), "main").unwrap();
        assert_eq!(found, Some(flat.path().to_path_buf()));
        let outside = with(&[("refs/main", "../.."), ("snapshots/c1/x", "")]);
        assert!(snapshot(outside.path(), "main").is_err());
        assert_eq!(snapshot(Path::new("/nowhere"), "main").unwrap(), None);
    }

    #[test]
    fn paths_are_expanded_as_in_python() {
        let home = env::home_dir().unwrap();
        assert_eq!(expanded("~/a"), home.join("a"));
        assert_eq!(expanded("~"), home);
        assert_eq!(expanded("a~/b"), PathBuf::from("a~/b"));
        let path = env::var("PATH").unwrap();
        assert_eq!(expanded("x/${PATH}"), PathBuf::from(format!("x/{path}")));
        assert_eq!(expanded("$PATH-"), PathBuf::from(format!("{path}-")));
        assert_eq!(
            expanded("$NOT_SET_ANYWHERE/$"),
            PathBuf::from("$NOT_SET_ANYWHERE/$")
        );
    }
}
