//! YAML from outside, within bounds that its parser does not have, and configurations that
//! are based on others.

mod layers;
mod locate;

pub use layers::{Layers, LayersError, Misfit, Place, YamlFile, BASE};

use std::path::Path;

use crate::files::{self, FileError};

/// Bound on a file in bytes: a hundred times any configuration.
const LARGEST: u64 = 4 << 20;
/// Bound on brackets that are open at once: with each of them the parser takes longer for
/// every word.
const OPEN_BRACKETS: usize = 512;

/// The text of the YAML file at `path`.
///
/// # Errors
///
/// What [`files::read_text`] gives; nesting as of [`check_brackets`].
pub fn read(path: &Path) -> Result<String, FileError> {
    let text = files::read_text(path, LARGEST)?;
    let problem =
        |e| FileError::reading(path)(std::io::Error::new(std::io::ErrorKind::InvalidData, e));
    check_brackets(&text).map_err(problem)?;
    Ok(text)
}

/// Too many brackets of a YAML text are open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: more than {OPEN_BRACKETS} brackets are open")]
pub struct TooDeep {
    /// Counted from 1.
    line: usize,
}

/// Refuses a YAML text whose brackets nest deeper than any configuration's.
pub fn check_brackets(text: &str) -> Result<(), TooDeep> {
    let mut open = 0usize;
    for (line, content) in (1..).zip(text.lines()) {
        for byte in content.bytes() {
            match byte {
                b'[' | b'{' => open += 1,
                b']' | b'}' => open = open.saturating_sub(1),
                _ => {}
            }
            if open > OPEN_BRACKETS {
                return Err(TooDeep { line });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brackets_are_counted_while_they_are_open() {
        assert_eq!(check_brackets(&"[".repeat(OPEN_BRACKETS)), Ok(()));
        assert_eq!(check_brackets(&"[{}]\n".repeat(1000)), Ok(()));
        let deep = format!("a: 1\nb: {}", "[{".repeat(OPEN_BRACKETS));
        assert_eq!(check_brackets(&deep), Err(TooDeep { line: 2 }));
    }
}
