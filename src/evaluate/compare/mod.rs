//! Two runs of the same prompts and seeds, picture by picture: what differs, and by how much
//! more than chance would have it. The spread between prompts, by far the largest part of an
//! interval, cancels.
//!
//! [`report`] reads what a measure wrote and matches its pictures with those of another run,
//! [`paired`] has the figures.

pub mod paired;
pub mod report;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

use self::paired::{Pair, Paired};
use self::report::{Comparable, CompareError, Figures, Matched, Source};

/// Two runs side by side.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    pub measure: &'static str,
    pub version: &'static str,
    /// The measure of both.
    pub of: String,
    /// The reports compared; the n-th of `a` with the n-th of `b`.
    pub a: Vec<Source>,
    pub b: Vec<Source>,
    pub splits: Vec<SplitComparison>,
    /// Figures that could not be compared, and why.
    pub left_out: Vec<String>,
}

/// One set of pictures of both runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SplitComparison {
    pub split: String,
    /// Pictures that both runs have.
    pub pictures: usize,
    /// Of so many in each.
    pub of: [usize; 2],
    /// Prompts among them; what is of one prompt is drawn together for the intervals.
    pub prompts: usize,
    /// By name.
    pub figures: BTreeMap<&'static str, Paired>,
}

impl Comparison {
    /// Compares the reports in each pair of folders; pairs, say of different seeds, are taken
    /// together.
    ///
    /// # Errors
    ///
    /// Reports that cannot be read, or that are not of the same prompts, seeds and real
    /// pictures.
    pub fn of(folders: &[[&Path; 2]]) -> Result<Self, CompareError> {
        let (mut a, mut b) = (Vec::new(), Vec::new());
        let mut splits: Vec<(String, Matched)> = Vec::new();
        let mut left_out: Vec<String> = Vec::new();
        let mut measure = None;
        for &[first, second] in folders {
            let [first, second] = [Comparable::read(first)?, Comparable::read(second)?];
            first.check(&second)?;
            if let Some(before) = &measure {
                first.check_kind(before)?;
            }
            for (name, why) in first.incomparable(&second) {
                let line = format!("{name}: {why}");
                if !left_out.contains(&line) {
                    left_out.push(line);
                }
            }
            for (name, matched) in first.matched(&second)? {
                match splits.iter_mut().find(|(split, _)| *split == name) {
                    Some((_, all)) => all.extend(matched),
                    None => splits.push((name, matched)),
                }
            }
            a.push(first.source.clone());
            b.push(second.source.clone());
            measure.get_or_insert(first);
        }
        let splits = splits.into_iter().map(|(split, matched)| SplitComparison {
            split,
            pictures: matched.pictures.len(),
            of: matched.of,
            prompts: matched.prompts(),
            figures: figures(&matched, &left_out),
        });
        Ok(Comparison {
            measure: "compare",
            version: env!("CARGO_PKG_VERSION"),
            of: measure.map(|m| m.measure).unwrap_or_default(),
            splits: splits.collect(),
            a,
            b,
            left_out,
        })
    }
}

/// Every known figure that both runs have for every one of the pairs.
fn figures(matched: &Matched, left_out: &[String]) -> BTreeMap<&'static str, Paired> {
    let mut found = BTreeMap::new();
    let known = Figures::KNOWN.iter().enumerate();
    for (index, &(name, kind)) in known {
        if left_out
            .iter()
            .any(|line| line.starts_with(&format!("{name}: ")))
        {
            continue;
        }
        let rows = match kind.of_prompts() {
            true => &matched.entropies,
            false => &matched.pictures,
        };
        let pairs: Option<Vec<Pair>> = rows
            .iter()
            .map(|row| {
                Some(Pair {
                    prompt: row.prompt,
                    a: row.a.get(name)?,
                    b: row.b.get(name)?,
                })
            })
            .collect();
        if let Some(pairs) = pairs.filter(|pairs| !pairs.is_empty()) {
            found.insert(name, Paired::new(&pairs, kind.is_rate(), index as u64));
        }
    }
    found
}
