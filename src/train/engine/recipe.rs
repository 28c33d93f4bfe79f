//! The faults of the original's training code, mended or repeated.

use serde::{Deserialize, Serialize};

/// Where the original's training code has faults, whether they are repeated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recipe {
    /// They are not.
    #[default]
    Corrected,
    /// They are: of a time drawn twice in a step one loss enters the history; clipping
    /// never ends; the cosine's warm-up takes a step too many. (The original's plateau
    /// is `learning_rate.course.window: 1`.)
    Official,
}
