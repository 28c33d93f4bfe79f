//! The file in which torchrun finds what a process failed of.

use std::path::PathBuf;

use serde_json::json;

/// Writes `message` where torchrun looks for it (`TORCHELASTIC_ERROR_FILE`), with the time `at`
/// in seconds since 1970: the earliest of a run is its root cause.
pub(super) fn write(message: &str, at: u64) {
    let path = std::env::var_os("TORCHELASTIC_ERROR_FILE").unwrap_or_default();
    if path.is_empty() {
        return;
    }
    let path = PathBuf::from(path);
    let text = json!({
        "message": {
            "message": message,
            "extraInfo": {"py_callstack": message, "timestamp": at.to_string()},
        }
    });
    if let Err(error) = std::fs::write(&path, text.to_string()) {
        log::warn!("{}: {error}", path.display());
    }
}
