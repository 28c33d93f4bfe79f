//! CLIP's byte-pair tokeniser, as VQ-Diffusion's text codec uses it.
//!
//! The vocabulary is ordered: 256 byte symbols, the same 256 with the
//! end-of-word mark `</w>`, one entry per merge rule, the start marker, the end
//! marker. The full vocabulary has 49 408 entries; a shorter one keeps the first
//! merge rules only, and its last two ids are still the markers.
//!
//! Source: Radford et al., "Learning Transferable Visual Models From Natural
//! Language Supervision" (CLIP), and the `SimpleTokenizer` of VQ-Diffusion.

use std::collections::HashMap;
use std::ops::Range;

use regex::Regex;
use tokenizers::models::bpe::BPE;
use tokenizers::Model;

use super::cleaning;
use super::merges::{byte_symbols, Merges, MergesError, WORD_END};
use super::token_rule::{TokenRule, PAD_ID};

pub use super::merges::FULL_VOCABULARY;

/// Positions of the CLIP text tower.
pub const CONTEXT_LENGTH: usize = 77;

/// The markers around every text.
pub const START_MARKER: &str = "<|startoftext|>";
pub const END_MARKER: &str = "<|endoftext|>";

/// The pieces that byte-pair merging never crosses: markers, English clitics,
/// runs of letters, single digits, runs of other symbols.
///
/// U+0345 has a letter as its case variant, which keeps it out of the last,
/// case-insensitive class of the original without making it a letter: it is
/// dropped. The `regex` crate would keep it, hence the explicit exclusion.
const PIECES: &str = concat!(
    r"(?i:<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d)",
    r"|\p{L}+|\p{N}|[^\s\p{L}\p{N}\u{345}]+",
);

/// What can go wrong while building or using a [`ClipTokenizer`].
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    #[error(transparent)]
    Merges(#[from] MergesError),
    /// The context cannot hold the two markers.
    #[error("a context of {0} positions cannot hold the start and the end marker")]
    ContextLength(usize),
    /// The pattern that splits a text did not compile.
    #[error("cannot compile the splitting pattern")]
    Pattern(#[from] regex::Error),
    /// The byte-pair model refused its vocabulary or a word.
    #[error("byte-pair model: {0}")]
    Model(#[from] tokenizers::Error),
}

/// One text as the CLIP tower takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoding {
    /// `context_length` ids in `0..vocab_size`: start marker, tokens, end marker,
    /// then the padding ([`ClipTokenizer::pad_id`]).
    pub ids: Vec<i64>,
    /// `context_length` flags, true for everything up to the end marker.
    pub mask: Vec<bool>,
    /// Whether tokens were dropped to fit the context.
    pub truncated: bool,
}

/// CLIP's tokeniser with the text cleaning of VQ-Diffusion.
#[derive(Clone)]
pub struct ClipTokenizer {
    model: BPE,
    pieces: Regex,
    /// The vocabulary's symbol for each byte value.
    byte_symbols: [char; 256],
    /// Inverse of `byte_symbols`.
    symbol_bytes: HashMap<char, u8>,
    merges: Merges,
    vocab_size: usize,
    context_length: usize,
    rule: TokenRule,
}

impl ClipTokenizer {
    /// A tokeniser with the first `vocab_size` entries of CLIP's vocabulary
    /// ([`FULL_VOCABULARY`] for the released models) and a context of
    /// [`CONTEXT_LENGTH`] positions.
    ///
    /// # Errors
    ///
    /// [`MergesError::Size`] outside 514 to [`FULL_VOCABULARY`].
    pub fn new(vocab_size: usize) -> Result<Self, TokenizerError> {
        Self::from_merges(Merges::clip(vocab_size)?)
    }

    /// A tokeniser with the vocabulary of `merges` and a context of
    /// [`CONTEXT_LENGTH`] positions.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::Model`] for rules that do not make a model.
    pub fn from_merges(merges: Merges) -> Result<Self, TokenizerError> {
        let byte_symbols = byte_symbols();
        Ok(Self {
            model: merges.model()?,
            pieces: Regex::new(PIECES)?,
            byte_symbols,
            symbol_bytes: (0..=255u8).map(|b| (byte_symbols[b as usize], b)).collect(),
            vocab_size: merges.vocabulary_size(),
            merges,
            context_length: CONTEXT_LENGTH,
            rule: TokenRule::Official,
        })
    }

    /// The same tokeniser with another number of positions, at least 2.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::ContextLength`] below 2.
    pub fn with_context_length(mut self, positions: usize) -> Result<Self, TokenizerError> {
        if positions < 2 {
            return Err(TokenizerError::ContextLength(positions));
        }
        self.context_length = positions;
        Ok(self)
    }

    /// The same tokeniser with another rule.
    pub fn with_rule(mut self, rule: TokenRule) -> Self {
        self.rule = rule;
        self
    }

    /// Number of entries, markers included.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Number of positions of every [`Encoding`].
    pub fn context_length(&self) -> usize {
        self.context_length
    }

    /// Id of the start marker, the last but one of the vocabulary.
    pub fn start_id(&self) -> i64 {
        self.vocab_size as i64 - 2
    }

    /// Id of the end marker, the last of the vocabulary.
    pub fn end_id(&self) -> i64 {
        self.vocab_size as i64 - 1
    }

    /// Id written after the end marker.
    pub fn pad_id(&self) -> i64 {
        self.rule.pad_id(self.vocab_size as i64)
    }

    /// Cleans and encodes `text` by the tokeniser's [`TokenRule`]. A text that is too
    /// long keeps its first ids; by the official rule the last position is overwritten
    /// with the end marker.
    ///
    /// # Errors
    ///
    /// [`TokenizerError::Model`] should the byte-pair model refuse a word; with
    /// every byte in the vocabulary it has no cause to.
    pub fn encode(&self, text: &str) -> Result<Encoding, TokenizerError> {
        let mut ids = vec![self.start_id()];
        ids.extend(self.tokenize(text)?);
        ids.push(self.end_id());

        let truncated = ids.len() > self.context_length;
        if truncated {
            ids.truncate(self.context_length);
            if self.rule == TokenRule::Official {
                ids[self.context_length - 1] = self.end_id();
            }
        }
        let mask = (0..self.context_length).map(|i| i < ids.len()).collect();
        ids.resize(self.context_length, self.pad_id());
        Ok(Encoding {
            ids,
            mask,
            truncated,
        })
    }

    /// The ids of the cleaned `text` alone: no markers around it, no padding, any
    /// length.
    ///
    /// # Errors
    ///
    /// As for [`ClipTokenizer::encode`].
    pub fn tokenize(&self, text: &str) -> Result<Vec<i64>, TokenizerError> {
        let mut ids = Vec::new();
        match self.rule {
            TokenRule::Official => self.push_words(&cleaning::clean(text), &mut ids)?,
            TokenRule::DiffusersEndPadding => self.push_segments(text, &mut ids)?,
            TokenRule::Diffusers => {
                for (i, segment) in text.split('!').enumerate() {
                    if i > 0 {
                        ids.push(PAD_ID);
                    }
                    self.push_segments(segment, &mut ids)?;
                }
            }
        }
        Ok(ids)
    }

    /// Appends the ids of `text` as transformers does: it takes the markers out before
    /// it cleans what is between them.
    fn push_segments(&self, text: &str, ids: &mut Vec<i64>) -> Result<(), TokenizerError> {
        let mut rest = text;
        loop {
            let next = [(START_MARKER, self.start_id()), (END_MARKER, self.end_id())]
                .into_iter()
                .filter_map(|(marker, id)| Some((rest.find(marker)?, marker, id)))
                .min();
            let Some((at, marker, id)) = next else {
                return self.push_words(&cleaning::clean_once(rest), ids);
            };
            self.push_words(&cleaning::clean_once(&rest[..at]), ids)?;
            ids.push(id);
            rest = &rest[at + marker.len()..];
        }
    }

    /// Appends the ids of the words of a cleaned text.
    fn push_words(&self, text: &str, ids: &mut Vec<i64>) -> Result<(), TokenizerError> {
        for piece in self.pieces.find_iter(text) {
            match piece.as_str() {
                START_MARKER => ids.push(self.start_id()),
                END_MARKER => ids.push(self.end_id()),
                word => {
                    let symbols = symbols(word, &self.byte_symbols);
                    let tokens = self.model.tokenize(&symbols)?;
                    ids.extend(tokens.iter().map(|token| i64::from(token.id)));
                }
            }
        }
        Ok(())
    }

    /// The vocabulary in the order of its ids, markers included.
    pub fn vocabulary(&self) -> Vec<String> {
        let markers = [START_MARKER.to_string(), END_MARKER.to_string()];
        self.merges.entries().into_iter().chain(markers).collect()
    }

    /// The merge rules in order.
    pub fn merges(&self) -> &Merges {
        &self.merges
    }

    /// The cleaned text behind `ids`, with one space between words. A leading start
    /// marker is left out, and so is everything from the last end marker on; ids
    /// outside the vocabulary and incomplete UTF-8 become U+FFFD.
    pub fn decode(&self, ids: &[i64]) -> String {
        let ids = &ids[..self.last_end(ids).unwrap_or(ids.len())];
        let ids = match ids {
            [first, rest @ ..] if *first == self.start_id() => rest,
            _ => ids,
        };
        let mut bytes = Vec::new();
        for &id in ids {
            if self.push_bytes(id, &mut bytes) {
                bytes.push(b' ');
            }
        }
        String::from_utf8_lossy(&bytes).trim_end().to_owned()
    }

    /// One label per position of `ids`: the text of the token without its
    /// end-of-word mark, the marker itself for start and end, nothing for the
    /// padding after the last end marker. A token that holds part of a character
    /// only shows U+FFFD.
    pub fn token_strings(&self, ids: &[i64]) -> Vec<String> {
        let padding = self.last_end(ids).map_or(ids.len(), |end| end + 1);
        ids.iter()
            .enumerate()
            .map(|(position, &id)| {
                let mut bytes = Vec::new();
                if position < padding {
                    self.push_bytes(id, &mut bytes);
                }
                String::from_utf8_lossy(&bytes).into_owned()
            })
            .collect()
    }

    /// The words of `ids` in order, each with the positions of its tokens: markers
    /// count as words, the padding after the last end marker is left out.
    pub fn words(&self, ids: &[i64]) -> Vec<(String, Range<usize>)> {
        let end = self.last_end(ids).map_or(ids.len(), |end| end + 1);
        let mut words = Vec::new();
        let (mut first, mut bytes) = (0, Vec::new());
        for (position, &id) in ids[..end].iter().enumerate() {
            let ends_word = self.push_bytes(id, &mut bytes);
            // A cut text may end, or meet its end marker, within a word.
            let cut = ids[..end]
                .get(position + 1)
                .is_none_or(|&next| next == self.end_id());
            if ends_word || cut {
                let word = String::from_utf8_lossy(&bytes).into_owned();
                words.push((word, first..position + 1));
                (first, bytes) = (position + 1, Vec::new());
            }
        }
        words
    }

    /// Position of the last end marker: only padding follows it, while an earlier
    /// one was written in the text. Where end markers are the padding, the first of the
    /// last ones.
    fn last_end(&self, ids: &[i64]) -> Option<usize> {
        let last = ids.iter().rposition(|&id| id == self.end_id())?;
        if self.rule != TokenRule::DiffusersEndPadding {
            return Some(last);
        }
        let text = ids[..last].iter().rposition(|&id| id != self.end_id());
        Some(text.map_or(0, |at| at + 1))
    }

    /// Appends the text of one id and says whether a word ends there.
    fn push_bytes(&self, id: i64, bytes: &mut Vec<u8>) -> bool {
        if id == self.start_id() || id == self.end_id() {
            let marker = if id == self.end_id() {
                END_MARKER
            } else {
                START_MARKER
            };
            bytes.extend_from_slice(marker.as_bytes());
            return true;
        }
        let Some(token) = u32::try_from(id)
            .ok()
            .and_then(|id| self.model.id_to_token(id))
        else {
            bytes.extend_from_slice("\u{fffd}".as_bytes());
            return false;
        };
        let (symbols, ends_word) = match token.strip_suffix(WORD_END) {
            Some(symbols) => (symbols, true),
            None => (token.as_str(), false),
        };
        bytes.extend(
            symbols
                .chars()
                .filter_map(|symbol| self.symbol_bytes.get(&symbol)),
        );
        ends_word
    }
}

/// Learns a vocabulary of at most `size` entries from `texts`, which are cleaned and
/// split as [`ClipTokenizer::encode`] does.
///
/// # Errors
///
/// As for [`Merges::train`].
pub fn train_vocabulary<'a>(
    texts: impl Iterator<Item = &'a str>,
    size: usize,
) -> Result<Merges, TokenizerError> {
    let pieces = Regex::new(PIECES)?;
    let byte_symbols = byte_symbols();
    let mut words = Vec::new();
    for text in texts {
        let text = cleaning::clean(text);
        let found = pieces.find_iter(&text).map(|piece| piece.as_str());
        let plain = found.filter(|piece| ![START_MARKER, END_MARKER].contains(piece));
        words.extend(plain.map(|word| symbols(word, &byte_symbols)));
    }
    Ok(Merges::train(words.iter().map(String::as_str), size)?)
}

/// The symbols of the bytes of `word`.
fn symbols(word: &str, byte_symbols: &[char; 256]) -> String {
    let symbol = |byte| byte_symbols[usize::from(byte)];
    word.bytes().map(symbol).collect()
}
