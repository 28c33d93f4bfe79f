//! Reports of measures that say what became of every picture, and which pictures of two of
//! them are of the same prompt and seed.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::evaluate::report::REPORT;
use crate::files::{self, FileError};

/// Bytes of the largest report.
const LARGEST: u64 = 1 << 30;

/// Why two reports are not compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}: {source}", path.display())]
    Json {
        path: PathBuf,
        source: serde_json::Error,
    },
    #[error(
        "{}: says nothing of single pictures, expected a report of evaluate retrieval or \
         evaluate colours by this version (measure again where an earlier one wrote it)",
        path.display()
    )]
    NoPictures { path: PathBuf },
    #[error(
        "{} and {} are not comparable: {what} is {} and {}",
        a.display(), b.display(), found[0], found[1]
    )]
    Unlike {
        a: PathBuf,
        b: PathBuf,
        what: &'static str,
        found: [String; 2],
    },
    #[error("{} and {} have no folder of prompts in common: {} and {}",
        a.display(), b.display(), found[0], found[1])]
    Splits {
        a: PathBuf,
        b: PathBuf,
        found: [String; 2],
    },
    #[error("{} and {} are not of the same prompts and seeds: of {split}, {}",
        a.display(), b.display(), only.join("; "))]
    Prompts {
        a: PathBuf,
        b: PathBuf,
        split: String,
        only: Vec<String>,
    },
}

/// What a figure is a figure of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FigureKind {
    /// A number of each picture.
    Mean,
    /// Whether each picture is right.
    Rate,
    /// A number of each prompt.
    OfPrompts,
}

impl FigureKind {
    pub fn is_rate(self) -> bool {
        self == FigureKind::Rate
    }

    pub fn of_prompts(self) -> bool {
        self == FigureKind::OfPrompts
    }
}

/// The figures of a picture or a prompt, a hit as 1.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(transparent)]
pub struct Figures(BTreeMap<String, Value>);

impl Figures {
    /// Those that are compared, by their names in reports.
    pub const KNOWN: [(&'static str, FigureKind); 10] = [
        ("hit", FigureKind::Rate),
        ("concept_hit", FigureKind::Rate),
        ("style_hit", FigureKind::Rate),
        ("wanted_distance", FigureKind::Mean),
        ("nearest_distance", FigureKind::Mean),
        ("bound", FigureKind::Mean),
        ("token_entropy", FigureKind::OfPrompts),
        ("hue_hit", FigureKind::Rate),
        ("shape_hit", FigureKind::Rate),
        ("both_hit", FigureKind::Rate),
    ];

    pub fn get(&self, name: &str) -> Option<f64> {
        let value = self.0.get(name)?;
        let number = value.as_f64().filter(|value| value.is_finite());
        number.or_else(|| value.as_bool().map(f64::from))
    }
}

/// A picture or a prompt of a report.
#[derive(Clone, Debug, PartialEq, Deserialize)]
struct FoundRow {
    #[serde(default)]
    file: Option<PathBuf>,
    #[serde(default)]
    prompt: Option<String>,
    #[serde(default)]
    seed: Option<u64>,
    #[serde(flatten)]
    figures: Figures,
}

impl FoundRow {
    /// What was asked for; of pictures that do not say it, the name of the file.
    fn asked(&self) -> String {
        match &self.prompt {
            Some(prompt) => format!("{prompt:?}"),
            None => {
                let name = self.file.as_deref().and_then(Path::file_name);
                name.unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    /// What names the picture among those of its set.
    fn key(&self) -> String {
        match self.seed {
            Some(seed) => format!("{} of seed {seed}", self.asked()),
            None => self.asked(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct FoundSplit {
    split: String,
    pictures: Vec<FoundRow>,
    #[serde(default)]
    prompts: Vec<FoundRow>,
}

/// What a report says of the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Source {
    /// The folder of the report.
    #[serde(default)]
    pub folder: PathBuf,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_sha256: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub options: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network_calls: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_calls: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_per_picture: Option<f64>,
}

/// A report of single pictures.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Comparable {
    pub measure: String,
    distance: String,
    #[serde(default)]
    ask: Option<String>,
    #[serde(default)]
    seeds: Option<usize>,
    #[serde(default)]
    bound_draws: Option<usize>,
    gallery_sha256: String,
    splits: Vec<FoundSplit>,
    #[serde(flatten)]
    pub source: Source,
}

/// One picture, or prompt, of two runs.
#[derive(Clone, Debug, PartialEq)]
pub struct MatchedRow {
    /// The number of its prompt.
    pub prompt: usize,
    pub a: Figures,
    pub b: Figures,
}

/// The pictures of a set that two runs have.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Matched {
    pub pictures: Vec<MatchedRow>,
    pub entropies: Vec<MatchedRow>,
    /// Pictures that each run has.
    pub of: [usize; 2],
    /// The numbers of prompts.
    numbers: HashMap<String, usize>,
}

impl Matched {
    /// Different prompts.
    pub fn prompts(&self) -> usize {
        self.numbers.len()
    }

    fn number(&mut self, prompt: String) -> usize {
        let next = self.numbers.len();
        *self.numbers.entry(prompt).or_insert(next)
    }

    fn rows(&mut self, pairs: Vec<[&FoundRow; 2]>) -> Vec<MatchedRow> {
        let row = |[a, b]: [&FoundRow; 2]| MatchedRow {
            prompt: self.number(a.asked()),
            a: a.figures.clone(),
            b: b.figures.clone(),
        };
        pairs.into_iter().map(row).collect()
    }

    /// Takes in those of another pair of runs; what is of the same prompt belongs together.
    pub fn extend(&mut self, other: Matched) {
        let numbers = other.numbers.into_iter();
        let numbers: HashMap<usize, usize> = numbers
            .map(|(prompt, number)| (number, self.number(prompt)))
            .collect();
        let renumbered = |row: MatchedRow| MatchedRow {
            prompt: numbers[&row.prompt],
            ..row
        };
        self.pictures
            .extend(other.pictures.into_iter().map(renumbered));
        self.entropies
            .extend(other.entropies.into_iter().map(renumbered));
        self.of = [self.of[0] + other.of[0], self.of[1] + other.of[1]];
    }
}

impl Comparable {
    /// The report in `folder`, or at that path.
    ///
    /// # Errors
    ///
    /// A file that cannot be read or is no report of single pictures.
    pub fn read(folder: &Path) -> Result<Self, CompareError> {
        let path = match folder.is_dir() {
            true => folder.join(REPORT),
            false => folder.to_path_buf(),
        };
        let text = files::read_text(&path, LARGEST)?;
        let json = |source| CompareError::Json {
            path: path.clone(),
            source,
        };
        let value: Value = serde_json::from_str(&text).map_err(json)?;
        let of_pictures = ["distance", "gallery_sha256", "splits"];
        if !of_pictures.iter().all(|key| value.get(key).is_some()) {
            return Err(CompareError::NoPictures { path });
        }
        let mut found: Comparable = serde_json::from_value(value).map_err(json)?;
        found.source.folder = folder.to_path_buf();
        Ok(found)
    }

    fn unlike(&self, other: &Self, what: &'static str, found: [String; 2]) -> CompareError {
        CompareError::Unlike {
            a: self.source.folder.clone(),
            b: other.source.folder.clone(),
            what,
            found,
        }
    }

    /// Whether both measure the same.
    ///
    /// # Errors
    ///
    /// What is unlike.
    pub fn check_kind(&self, other: &Self) -> Result<(), CompareError> {
        let asked = |of: &Self| of.ask.clone().unwrap_or_else(|| "caption".into());
        for (what, found) in [
            ("the measure", [self, other].map(|of| of.measure.clone())),
            ("the distance", [self, other].map(|of| of.distance.clone())),
            ("what was asked for", [self, other].map(asked)),
        ] {
            if found[0] != found[1] {
                return Err(self.unlike(other, what, found));
            }
        }
        Ok(())
    }

    /// As [`check_kind`](Self::check_kind), by the same real pictures.
    ///
    /// # Errors
    ///
    /// What is unlike.
    pub fn check(&self, other: &Self) -> Result<(), CompareError> {
        self.check_kind(other)?;
        if self.gallery_sha256 == other.gallery_sha256 {
            return Ok(());
        }
        let found = [self, other].map(|of| of.gallery_sha256.chars().take(16).collect());
        Err(self.unlike(other, "the gallery's SHA-256", found))
    }

    /// Figures that mean another thing in the other run, and why.
    pub fn incomparable(&self, other: &Self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        if let (Some(a), Some(b)) = (self.bound_draws, other.bound_draws) {
            if self.source.model_sha256 != other.source.model_sha256 {
                found.push(("bound", "each run was judged by its own network".into()));
            } else if a != b {
                found.push(("bound", format!("estimated with {a} and {b} draws")));
            }
        }
        let several = |of: &Self| of.seeds.filter(|&seeds| seeds > 1);
        if let (Some(a), Some(b)) = (several(self), several(other)) {
            if a != b {
                found.push(("token_entropy", format!("of {a} and {b} pictures a prompt")));
            }
        }
        found
    }

    /// The pictures of each set that both runs have, by the set's name. One run may have made
    /// fewer of the same.
    ///
    /// # Errors
    ///
    /// Sets of which neither run's pictures are among the other's.
    pub fn matched(&self, other: &Self) -> Result<Vec<(String, Matched)>, CompareError> {
        let mut found = Vec::new();
        for a in &self.splits {
            let Some(b) = other.splits.iter().find(|b| b.split == a.split) else {
                continue;
            };
            let pairs = pairs(&a.pictures, &b.pictures);
            if pairs.len() < a.pictures.len().min(b.pictures.len()) || pairs.is_empty() {
                return Err(CompareError::Prompts {
                    a: self.source.folder.clone(),
                    b: other.source.folder.clone(),
                    split: a.split.clone(),
                    only: [(&a.pictures, &b.pictures), (&b.pictures, &a.pictures)]
                        .into_iter()
                        .zip(["first", "second"])
                        .filter_map(|((of, other), which)| {
                            Some(format!("{} is in the {which} only", only(of, other)?))
                        })
                        .collect(),
                });
            }
            let mut matched = Matched {
                of: [a.pictures.len(), b.pictures.len()],
                ..Matched::default()
            };
            matched.pictures = matched.rows(pairs);
            matched.entropies = matched.rows(self::pairs(&a.prompts, &b.prompts));
            found.push((a.split.clone(), matched));
        }
        if found.is_empty() {
            let names = |of: &Self| {
                let names: Vec<&str> = of.splits.iter().map(|s| s.split.as_str()).collect();
                names.join(", ")
            };
            return Err(CompareError::Splits {
                a: self.source.folder.clone(),
                b: other.source.folder.clone(),
                found: [self, other].map(names),
            });
        }
        Ok(found)
    }
}

/// The rows of both, by what names them.
fn pairs<'a>(a: &'a [FoundRow], b: &'a [FoundRow]) -> Vec<[&'a FoundRow; 2]> {
    let known: HashMap<String, &FoundRow> = b.iter().map(|row| (row.key(), row)).collect();
    let pair = |row: &'a FoundRow| Some([row, *known.get(&row.key())?]);
    a.iter().filter_map(pair).collect()
}

/// The first of the rows `of` that the `other` ones lack.
fn only(of: &[FoundRow], other: &[FoundRow]) -> Option<String> {
    let known: BTreeSet<String> = other.iter().map(FoundRow::key).collect();
    of.iter()
        .map(FoundRow::key)
        .find(|key| !known.contains(key))
}
