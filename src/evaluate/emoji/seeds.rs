//! How much the pictures of one prompt differ: the entropy of their tokens.

use std::collections::BTreeMap;

use serde::Serialize;

use super::asked::LabelledSet;

/// A prompt that several pictures were made of.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PromptEntropy {
    pub prompt: Option<String>,
    /// Of the first picture.
    pub seed: Option<u64>,
    pub pictures: usize,
    /// Nats a token: the mean over positions of [`token_entropy`].
    pub token_entropy: f64,
}

/// The mean over positions of the plug-in entropy −Σ (n/N) ln(n/N) of the codes that the N
/// `pictures`, of equally many tokens each, have there, in nats: from 0, where all are alike,
/// to ln N. It depends on N: only equal numbers of pictures compare.
pub fn token_entropy(pictures: &[&[i64]]) -> f64 {
    let positions = pictures.first().map_or(0, |tokens| tokens.len());
    let count = pictures.len() as f64;
    let at = |position: usize| -> f64 {
        let mut found: BTreeMap<i64, f64> = BTreeMap::new();
        for tokens in pictures {
            *found.entry(tokens[position]).or_default() += 1.0;
        }
        found.values().map(|n| -n / count * (n / count).ln()).sum()
    };
    (0..positions).map(at).sum::<f64>() / positions.max(1) as f64
}

/// Of every place of `set` all of whose pictures, at least two, were made.
pub fn token_entropies(set: &LabelledSet) -> Vec<(usize, PromptEntropy)> {
    let mut found = Vec::new();
    let mut first = 0;
    for places in set.places.chunk_by(|a, b| a == b) {
        let tokens = set.tokens.get(first..first + set.each).unwrap_or_default();
        if places.len() == set.each && tokens.len() == set.each && set.each > 1 {
            let tokens: Vec<&[i64]> = tokens.iter().map(Vec::as_slice).collect();
            let (prompt, seed) = set.prompt(first);
            let entropy = PromptEntropy {
                prompt,
                seed,
                pictures: set.each,
                token_entropy: token_entropy(&tokens),
            };
            found.push((places[0], entropy));
        }
        first += places.len();
    }
    found
}
