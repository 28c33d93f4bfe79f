//! The scores of a set of labelled pictures: all together, of each style, and of each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;

use super::labelled::EmojiLabel;

/// Scores `S` of a set, and what became of each picture (`P`).
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LabelledScores<S, P> {
    pub all: S,
    pub styles: BTreeMap<String, S>,
    pub pictures: Vec<P>,
}

impl<S, P> LabelledScores<S, P> {
    /// Scores all `answers`, and those of each style of their `labels`.
    pub fn new<A>(
        labels: &[&EmojiLabel],
        answers: &[A],
        pictures: Vec<P>,
        score: impl Fn(&[&A]) -> S,
    ) -> Self {
        let mut styles: BTreeMap<String, Vec<&A>> = BTreeMap::new();
        for (label, answer) in labels.iter().zip(answers) {
            styles.entry(label.style.clone()).or_default().push(answer);
        }
        let all: Vec<&A> = answers.iter().collect();
        LabelledScores {
            all: score(&all),
            styles: styles
                .into_iter()
                .map(|(style, answers)| (style, score(&answers)))
                .collect(),
            pictures,
        }
    }

    /// The scores of all styles together, then of each, by name.
    pub fn by_style(&self) -> impl Iterator<Item = (&str, &S)> {
        let styles = self.styles.iter();
        let styles = styles.map(|(style, scores)| (style.as_str(), scores));
        std::iter::once(("all styles", &self.all)).chain(styles)
    }
}

/// A real picture by what it shows.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Real {
    pub file: PathBuf,
    pub concept: String,
    pub style: String,
}

impl From<&EmojiLabel> for Real {
    fn from(label: &EmojiLabel) -> Self {
        Real {
            file: label.file.clone(),
            concept: label.concept.clone(),
            style: label.style.clone(),
        }
    }
}
