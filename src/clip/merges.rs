//! The ordered merge rules of a byte-pair vocabulary: the first ones of CLIP's, or a
//! model's own.
//!
//! A vocabulary of V entries is 256 byte symbols, the same 256 with the end-of-word mark
//! `</w>`, one entry per merge rule, and the two markers: V − 514 rules.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::GzDecoder;
use tokenizers::models::bpe::{BpeTrainer, Vocab, BPE};
use tokenizers::{AddedToken, Trainer};

use crate::files::{self, FileError};

pub(super) const WORD_END: &str = "</w>";
/// Byte symbols with and without [`WORD_END`].
const SYMBOLS: usize = 2 * 256;
/// Entries of a vocabulary without merge rules: byte symbols and the two markers.
pub const FIXED_ENTRIES: usize = SYMBOLS + 2;
/// Entries of the vocabulary that the released CLIP towers were trained with.
pub const FULL_VOCABULARY: usize = 49_408;
/// Merge rules of that vocabulary. OpenAI's file lists five times as many.
const CLIP_RULES: usize = FULL_VOCABULARY - FIXED_ENTRIES;

/// Bounds on what is read from outside: rules; bytes of a line and of an entry; bytes of
/// all lines, and of all entries.
const MOST_RULES: usize = 1 << 19;
const LONGEST: usize = 4096;
const LARGEST: usize = 32 << 20;
/// Longest entry in symbols that training makes, so that it can be read again.
const LONGEST_LEARNED: usize = 1024;

static CLIP_GZ: &[u8] = include_bytes!("vocabulary/bpe_simple_vocab_16e6.txt.gz");

/// Why merge rules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum MergesError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("{}:{line}: {problem}", path.display())]
    Line {
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        problem: String,
    },
    /// A rule that makes no new entry from two that come before it.
    #[error("merge rule {rule}: {problem}")]
    Rule {
        /// Counted from 1.
        rule: usize,
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

/// The two entries that a merge rule joins.
type Rule = (String, String);

/// Merge rules in order: each joins two entries that come before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merges(Vec<Rule>);

impl Merges {
    /// Those of a CLIP vocabulary cut to `vocabulary` entries.
    ///
    /// # Errors
    ///
    /// [`MergesError::Size`] outside 514 to [`FULL_VOCABULARY`].
    pub fn clip(vocabulary: usize) -> Result<Self, MergesError> {
        let max = FULL_VOCABULARY;
        if !(FIXED_ENTRIES..=max).contains(&vocabulary) {
            return Err(MergesError::Size {
                requested: vocabulary,
                min: FIXED_ENTRIES,
                max,
            });
        }
        let bundled = BufReader::new(GzDecoder::new(CLIP_GZ));
        let count = vocabulary - FIXED_ENTRIES;
        let rules = parse(bundled, Path::new("the bundled vocabulary"), count)?;
        Ok(Merges(rules.into_iter().map(|(_, rule)| rule).collect()))
    }

    /// Whether these are the rules of the whole CLIP vocabulary.
    pub fn is_clip(&self) -> bool {
        self.0.len() == CLIP_RULES && Merges::clip(FULL_VOCABULARY).is_ok_and(|clip| clip == *self)
    }

    /// Reads `merges.txt` as transformers writes it, or a vocabulary of the original's
    /// (`bpe_path`), also compressed with gzip: a title line, then a rule a line. Blank
    /// lines are skipped. Of a file that goes on behind CLIP's rules, as OpenAI's does,
    /// these are taken, as the original does.
    ///
    /// # Errors
    ///
    /// An unreadable file; a line that is not two earlier entries with a space between;
    /// more than such a file ever holds.
    pub fn read(path: &Path) -> Result<Self, MergesError> {
        let mut file = BufReader::new(files::open(path)?);
        let start = file.fill_buf().map_err(FileError::reading(path))?;
        let text: Box<dyn Read> = match start.starts_with(&[0x1f, 0x8b]) {
            true => Box::new(GzDecoder::new(file)),
            false => Box::new(file),
        };
        let numbered = parse(BufReader::new(text), path, MOST_RULES + 1)?;
        let (lines, mut rules): (Vec<usize>, Vec<_>) = numbered.into_iter().unzip();
        if rules.len() > CLIP_RULES && Merges::clip(FULL_VOCABULARY)?.0 == rules[..CLIP_RULES] {
            rules.truncate(CLIP_RULES);
        }
        Merges::from_rules(rules).map_err(|e| match e {
            MergesError::Rule { rule, problem } => MergesError::Line {
                path: path.to_path_buf(),
                line: lines[rule - 1],
                problem,
            },
            e => e,
        })
    }

    /// From the two entries that each rule joins.
    ///
    /// # Errors
    ///
    /// [`MergesError::Rule`]: an entry that is no earlier one, a rule that makes one again;
    /// more rules, or longer ones, than any vocabulary has.
    pub fn from_rules(rules: Vec<(String, String)>) -> Result<Self, MergesError> {
        let mut entries: HashSet<String> = symbols().into_iter().collect();
        let mut size = 0;
        for (index, (left, right)) in rules.iter().enumerate() {
            let bad = |problem: String| {
                let rule = index + 1;
                Err(MergesError::Rule { rule, problem })
            };
            if let Some(part) = [left, right].into_iter().find(|p| !entries.contains(*p)) {
                let part = shown(part);
                return bad(format!(
                    "'{part}' is neither a byte symbol nor made by a rule above"
                ));
            }
            let length = left.len() + right.len();
            size += length;
            if let Some(problem) = too_large(index + 1, length, size) {
                return bad(problem);
            }
            let entry = format!("{left}{right}");
            if entries.contains(&entry) {
                return bad(format!("a rule above makes '{}' already", shown(&entry)));
            }
            entries.insert(entry);
        }
        Ok(Merges(rules))
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
                max: FULL_VOCABULARY,
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
            .max_token_length(Some(LONGEST_LEARNED))
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
        let mut merges = Vec::new();
        let mut size = 0;
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
            let length = first.len() + second.len();
            size += length;
            if let Some(problem) = too_large(rule + 1, length, size) {
                let rule = rule + 1;
                return Err(MergesError::Rule { rule, problem });
            }
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

/// What is too much about `rules` rules of which the last makes an entry of `length` bytes,
/// and all together entries of `size` bytes.
fn too_large(rules: usize, length: usize, size: usize) -> Option<String> {
    let (found, most, what) = match () {
        () if rules > MOST_RULES => (rules, MOST_RULES, "rules"),
        () if length > LONGEST => (length, LONGEST, "bytes in one entry"),
        () if size > LARGEST => (size, LARGEST, "bytes in all entries"),
        () => return None,
    };
    Some(format!("{found} {what}, expected at most {most}"))
}

/// The beginning of `text`.
fn shown(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Up to `count` rules behind the title line of `text`, with the numbers of their lines.
fn parse(
    mut text: impl BufRead,
    path: &Path,
    count: usize,
) -> Result<Vec<(usize, Rule)>, MergesError> {
    let mut rules = Vec::new();
    let mut has_title = false;
    let (mut number, mut size) = (0, 0);
    let mut line = Vec::new();
    while rules.len() < count {
        line.clear();
        let limit = LONGEST as u64 + 1;
        let read = (&mut text).take(limit).read_until(b'\n', &mut line);
        if read.map_err(FileError::reading(path))? == 0 {
            break;
        }
        number += 1;
        size += line.len();
        let bad = |problem: String| MergesError::Line {
            path: path.to_path_buf(),
            line: number,
            problem,
        };
        if line.len() > LONGEST || size > LARGEST {
            return Err(bad(format!(
                "more than {LONGEST} bytes in a line or {LARGEST} in all, which are no merge rules"
            )));
        }
        let Ok(rule) = std::str::from_utf8(&line) else {
            return Err(bad("is not text in UTF-8".into()));
        };
        let mut parts = rule.split_whitespace();
        match (parts.next(), parts.next(), parts.next()) {
            (None, ..) => {}
            _ if !has_title => has_title = true,
            (Some(left), Some(right), None) => {
                rules.push((number, (left.to_owned(), right.to_owned())));
            }
            _ => {
                let rule = shown(rule.trim());
                return Err(bad(format!(
                    "'{rule}' is not two symbols with a space between"
                )));
            }
        }
    }
    Ok(rules)
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
