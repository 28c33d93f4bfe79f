//! The ordered merge rules of a byte-pair vocabulary: the first ones of CLIP's, or a
//! model's own.
//!
//! A vocabulary of V entries is 256 byte symbols, the same 256 with the end-of-word mark
//! `</w>`, one entry per merge rule, and the two markers: V − 514 rules.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tokenizers::models::bpe::{BpeTrainer, Vocab, BPE};
use tokenizers::{AddedToken, Trainer};

pub(super) const WORD_END: &str = "</w>";
/// Byte symbols with and without [`WORD_END`].
const SYMBOLS: usize = 2 * 256;
/// Entries of a vocabulary without merge rules: byte symbols and the two markers.
pub const FIXED_ENTRIES: usize = SYMBOLS + 2;

static CLIP_GZ: &[u8] = include_bytes!("vocabulary/bpe_simple_vocab_16e6.txt.gz");

/// Why merge rules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MergesError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        problem: String,
    },
    /// CLIP has no vocabulary of this size.
    #[error("a CLIP vocabulary has {min} to {max} entries, not {requested}")]
    Size {
        requested: usize,
        /// Byte symbols and markers only.
        min: usize,
        /// All merge rules.
        max: usize,
    },
    /// Pairs of ids that are no merge rules.
    #[error(
        "merge rule {rule} joins the entries {left} and {right}, expected ids from 0 to {last}"
    )]
    Ids {
        rule: usize,
        left: i64,
        right: i64,
        last: usize,
    },
    #[error("byte-pair training: {0}")]
    Training(tokenizers::Error),
}

/// Merge rules in order: each joins two entries that come before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merges(Vec<(String, String)>);

impl Merges {
    /// Those of a CLIP vocabulary cut to `vocabulary` entries.
    ///
    /// # Errors
    ///
    /// [`MergesError::Size`] outside 514 to [`super::tokenizer::FULL_VOCABULARY`].
    pub fn clip(vocabulary: usize) -> Result<Self, MergesError> {
        let max = super::tokenizer::FULL_VOCABULARY;
        if !(FIXED_ENTRIES..=max).contains(&vocabulary) {
            return Err(MergesError::Size {
                requested: vocabulary,
                min: FIXED_ENTRIES,
                max,
            });
        }
        let bundled = BufReader::new(GzDecoder::new(CLIP_GZ));
        let count = vocabulary - FIXED_ENTRIES;
        let mut merges = parse(bundled, Path::new("the bundled vocabulary"), count)?;
        merges.shrink_to_fit();
        Ok(Merges(merges))
    }

    /// Reads `merges.txt` as transformers writes it, or a vocabulary of the original's
    /// (`bpe_path`), also compressed with gzip: a title line, then a rule a line.
    ///
    /// # Errors
    ///
    /// An unreadable file; a line that is not two earlier entries with a space between.
    pub fn read(path: &Path) -> Result<Self, MergesError> {
        let io = |source| MergesError::Io {
            path: path.to_path_buf(),
            source,
        };
        let mut file = BufReader::new(File::open(path).map_err(io)?);
        let compressed = file.fill_buf().map_err(io)?.starts_with(&[0x1f, 0x8b]);
        let text: Box<dyn Read> = match compressed {
            true => Box::new(GzDecoder::new(file)),
            false => Box::new(file),
        };
        let merges = parse(BufReader::new(text), path, usize::MAX)?;
        let mut entries: HashSet<String> = symbols().into_iter().collect();
        for (index, (left, right)) in merges.iter().enumerate() {
            let problem = [left, right]
                .into_iter()
                .find(|part| !entries.contains(*part))
                .map(|part| format!("'{part}' is neither a byte symbol nor made by a rule above"));
            let new = problem.is_some() || entries.insert(format!("{left}{right}"));
            let problem =
                problem.or((!new).then(|| format!("a rule above makes '{left}{right}' already")));
            if let Some(problem) = problem {
                return Err(MergesError::Line {
                    path: path.to_path_buf(),
                    line: index + 2,
                    problem,
                });
            }
        }
        Ok(Merges(merges))
    }

    /// Learns up to `vocabulary` − 514 rules from `words`, each the byte symbols of a
    /// word: again and again the most frequent pair, of equally frequent ones that with
    /// the smaller ids. Pairs that occur once are not joined.
    ///
    /// # Errors
    ///
    /// A vocabulary without room for rules.
    pub fn train<'a>(
        words: impl Iterator<Item = &'a str> + Send,
        vocabulary: usize,
    ) -> Result<Self, MergesError> {
        if vocabulary <= FIXED_ENTRIES {
            return Err(MergesError::Size {
                requested: vocabulary,
                min: FIXED_ENTRIES + 1,
                max: super::tokenizer::FULL_VOCABULARY,
            });
        }
        // Entered as special tokens the symbols have fixed ids, which decide between
        // pairs of the same frequency.
        let fixed = symbols().into_iter().map(|s| AddedToken::from(s, true));
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocabulary - 2)
            .min_frequency(2)
            .show_progress(false)
            .special_tokens(fixed.collect())
            .end_of_word_suffix(WORD_END.to_owned())
            .build();
        trainer
            .feed(words, |word| Ok(vec![word.to_string()]))
            .map_err(MergesError::Training)?;
        let mut model = BPE::default();
        trainer.train(&mut model).map_err(MergesError::Training)?;
        // The model shows its rules in its serialized form only.
        let problem = |e: serde_json::Error| MergesError::Training(e.into());
        let mut form = serde_json::to_value(&model).map_err(problem)?;
        let rules = serde_json::from_value(form["merges"].take()).map_err(problem)?;
        Ok(Merges(rules))
    }

    /// From the ids of the two entries that each rule joins, `[rules][2]`.
    ///
    /// # Errors
    ///
    /// An id that is not of an earlier entry.
    pub fn from_ids(ids: &[[i64; 2]]) -> Result<Self, MergesError> {
        let mut entries = symbols();
        let mut merges = Vec::with_capacity(ids.len());
        for (rule, &[left, right]) in ids.iter().enumerate() {
            let entry = |id: i64| usize::try_from(id).ok().and_then(|id| entries.get(id));
            let (Some(first), Some(second)) = (entry(left), entry(right)) else {
                let last = entries.len() - 1;
                return Err(MergesError::Ids {
                    rule,
                    left,
                    right,
                    last,
                });
            };
            let (first, second) = (first.clone(), second.clone());
            entries.push(format!("{first}{second}"));
            merges.push((first, second));
        }
        Ok(Merges(merges))
    }

    /// The ids of the two entries that each rule joins.
    pub fn ids(&self) -> Vec<[i64; 2]> {
        let ids: HashMap<String, i64> = self.entries().into_iter().zip(0..).collect();
        let id = |entry: &String| ids.get(entry).copied().unwrap_or(-1);
        let pairs = self.0.iter();
        pairs.map(|(left, right)| [id(left), id(right)]).collect()
    }

    /// Entries of the vocabulary with these rules, markers included.
    pub fn vocabulary_size(&self) -> usize {
        self.0.len() + FIXED_ENTRIES
    }

    /// As a text that [`read`](Self::read) reads.
    pub fn to_text(&self) -> String {
        let rules = self
            .0
            .iter()
            .map(|(left, right)| format!("{left} {right}\n"));
        format!("#version: 0.2\n{}", rules.collect::<String>())
    }

    /// The entries in the order of their ids, without the markers.
    pub(super) fn entries(&self) -> Vec<String> {
        let merged = self.0.iter().map(|(left, right)| format!("{left}{right}"));
        symbols().into_iter().chain(merged).collect()
    }

    /// The byte-pair model.
    pub(super) fn model(&self) -> Result<BPE, tokenizers::Error> {
        let vocabulary: Vocab = self.entries().into_iter().zip(0..).collect();
        BPE::builder()
            .vocab_and_merges(vocabulary, self.0.clone())
            .end_of_word_suffix(WORD_END.to_owned())
            .build()
    }
}

/// Up to `count` rules behind the title line of `text`.
fn parse(
    text: impl BufRead,
    path: &Path,
    count: usize,
) -> Result<Vec<(String, String)>, MergesError> {
    let rules = text.lines().zip(1..).skip(1).take(count);
    rules
        .map(|(rule, line)| {
            let rule = rule.map_err(|source| MergesError::Io {
                path: path.to_path_buf(),
                source,
            })?;
            match rule.split_once(' ') {
                Some((left, right)) if !left.is_empty() && !right.is_empty() => {
                    Ok((left.to_owned(), right.to_owned()))
                }
                _ => Err(MergesError::Line {
                    path: path.to_path_buf(),
                    line,
                    problem: format!("'{rule}' is not two symbols with a space between"),
                }),
            }
        })
        .collect()
}

/// The byte symbols, then the same with [`WORD_END`], in the order of their ids: bytes
/// that stand for themselves come first.
fn symbols() -> Vec<String> {
    let (printable, other): (Vec<u8>, Vec<u8>) = (0..=255u8).partition(|&b| is_printable(b));
    let bytes = printable.iter().chain(&other);
    let stand_ins = byte_symbols();
    let plain: Vec<String> = bytes
        .map(|&byte| stand_ins[usize::from(byte)].to_string())
        .collect();
    let word_ends = plain.iter().map(|symbol| format!("{symbol}{WORD_END}"));
    plain.iter().cloned().chain(word_ends).collect()
}

/// The printable stand-in of every byte. Bytes that Latin-1 prints stand for
/// themselves, the others take the code points from U+0100 on, in byte order.
pub(super) fn byte_symbols() -> [char; 256] {
    let mut next = 0x100;
    std::array::from_fn(|index| {
        let byte = index as u8;
        if is_printable(byte) {
            return char::from(byte);
        }
        next += 1;
        char::from_u32(next - 1).unwrap_or(char::REPLACEMENT_CHARACTER)
    })
}

fn is_printable(byte: u8) -> bool {
    matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff)
}
