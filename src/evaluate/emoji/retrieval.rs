//! Retrieval: is the real picture nearest to the made one the one asked for?

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;

use super::asked::{Ask, LabelledSet};
use super::gallery::{standing, Gallery, Standing};
use super::labelled::EmojiLabel;
use super::scores::{LabelledScores, Real};
use super::seeds::{token_entropies, PromptEntropy};
use crate::data::DataError;
use crate::evaluate::mean::Mean;
use crate::evaluate::rate::Rate;
use crate::picture::Picture;

/// What became of one picture.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 1 if the nearest real picture is right ([`Standing::rank`]): it has the concept and,
    /// where that was asked for, the style.
    pub rank: usize,
    /// Whether the nearest one has the concept, or the style.
    pub concept: bool,
    pub style: bool,
    /// Place in the gallery of the nearest, and of the nearest right one.
    pub nearest: usize,
    pub wanted: usize,
    /// Their distances in 8-bit steps.
    pub nearest_distance: f64,
    pub wanted_distance: f64,
    /// Chance that a picture drawn from the gallery is right.
    pub chance: f64,
}

/// Looks for each of `pictures`, which should show what `wanted` says.
///
/// # Errors
///
/// The place of a picture that has no counterpart in the gallery.
pub fn retrieve(
    pictures: &[Picture],
    wanted: &[&EmojiLabel],
    ask: Ask,
    gallery: &Gallery,
) -> Result<Vec<Answer>, usize> {
    let mut answers = Vec::with_capacity(pictures.len());
    gallery.distances(pictures, |n, distances| {
        answers.push(answer(distances, wanted[n], ask, gallery).ok_or(n));
    });
    answers.into_iter().collect()
}

fn answer(distances: &[f64], wanted: &EmojiLabel, ask: Ask, gallery: &Gallery) -> Option<Answer> {
    let concept = |place: usize| gallery.labels[place].concept == wanted.concept;
    let style = |place: usize| gallery.labels[place].style == wanted.style;
    let right = |place: usize| concept(place) && (ask == Ask::Name || style(place));
    let found = standing(distances, right)?;
    let nearest = match found.rank {
        1 => found,
        _ => standing(distances, |_| true)?,
    };
    let first = |standing: Option<Standing>| standing.is_some_and(|s| s.rank == 1);
    let count = (0..distances.len()).filter(|&place| right(place)).count();
    Some(Answer {
        rank: found.rank,
        concept: first(standing(distances, concept)),
        style: first(standing(distances, style)),
        nearest: nearest.place,
        wanted: found.place,
        nearest_distance: distances[nearest.place].sqrt(),
        wanted_distance: distances[found.place].sqrt(),
        chance: count as f64 / distances.len() as f64,
    })
}

/// One picture in the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetrievedPicture {
    pub file: PathBuf,
    /// What it was made for, where that is known.
    pub prompt: Option<String>,
    pub seed: Option<u64>,
    pub concept: String,
    /// None where the bare name was asked for.
    pub style: Option<String>,
    pub hit: bool,
    /// Whether the nearest real picture has the concept, in whatever style.
    pub concept_hit: bool,
    /// Whether it has the style, whatever it shows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style_hit: Option<bool>,
    /// 1 more than the number of real pictures nearer than the nearest right one.
    pub rank: usize,
    pub nearest: Real,
    pub nearest_distance: f64,
    pub wanted: Real,
    pub wanted_distance: f64,
    /// Of −log p of its tokens by the network without guidance, in nats.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<f64>,
}

/// Why `label` cannot be looked for.
pub fn absent(label: &EmojiLabel, ask: Ask) -> String {
    let what = format!("the gallery has no picture of {:?}", label.concept);
    match ask {
        Ask::Caption => format!("{what} in style {:?}", label.style),
        Ask::Name => what,
    }
}

/// What is found of a set.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetrievalFound {
    #[serde(flatten)]
    pub scores: LabelledScores<RetrievalScores, RetrievedPicture>,
    /// Of each prompt that several pictures were made of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub prompts: Vec<PromptEntropy>,
}

/// A picture's answer with what is known of the picture.
struct Scored<'a> {
    answer: &'a Answer,
    place: usize,
    bound: Option<f64>,
}

/// Looks for every picture of `set` in `gallery`: what became of each, and the scores.
///
/// # Errors
///
/// A picture that has no counterpart in the gallery, by its line.
pub fn measure(
    set: &LabelledSet,
    gallery: &Gallery,
) -> Result<(Vec<Answer>, RetrievalFound), DataError> {
    let labels = set.labels();
    let styled = set.ask == Ask::Caption;
    let answers = retrieve(&set.pictures, &labels, set.ask, gallery)
        .map_err(|n| set.problem(n, absent(labels[n], set.ask)))?;
    let real = |place: usize| Real::from(&gallery.labels[place]);
    let bound = |n: usize| set.bounds.get(n).copied();
    let pictures = answers.iter().enumerate().map(|(n, answer)| {
        let (prompt, seed) = set.prompt(n);
        RetrievedPicture {
            file: set.files[n].clone(),
            prompt,
            seed,
            concept: labels[n].concept.clone(),
            style: styled.then(|| labels[n].style.clone()),
            hit: answer.rank == 1,
            concept_hit: answer.concept,
            style_hit: styled.then_some(answer.style),
            rank: answer.rank,
            nearest: real(answer.nearest),
            nearest_distance: answer.nearest_distance,
            wanted: real(answer.wanted),
            wanted_distance: answer.wanted_distance,
            bound: bound(n),
        }
    });
    let scored: Vec<Scored> = answers
        .iter()
        .enumerate()
        .map(|(n, answer)| Scored {
            answer,
            place: set.places[n],
            bound: bound(n),
        })
        .collect();
    let prompts = token_entropies(set);
    let entropies = prompts.iter().map(|(place, of)| (*place, of.token_entropy));
    let entropies: BTreeMap<usize, f64> = entropies.collect();
    let mut scores = LabelledScores::new(&labels, &scored, pictures.collect(), |scored| {
        RetrievalScores::of(scored, styled, &entropies)
    });
    if !styled {
        scores.styles.clear();
    }
    let prompts = prompts.into_iter().map(|(_, of)| of).collect();
    Ok((answers, RetrievalFound { scores, prompts }))
}

/// What became of many pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetrievalScores {
    /// The nearest real picture has what was asked for: concept and style, or the concept.
    pub top1: Rate,
    /// One of the five nearest has.
    pub top5: Rate,
    /// The nearest one has the concept, in whatever style.
    pub concept: Rate,
    /// The nearest one has the style, whatever it shows. None where none was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub style: Option<Rate>,
    /// Median of [`Answer::rank`], the lower one of two: it tells weak models apart.
    pub median_rank: usize,
    /// Of the nearest right real picture, in 8-bit steps.
    pub wanted_distance: Mean,
    /// Of the nearest real picture.
    pub nearest_distance: Mean,
    /// Of −log p of the tokens by the network without guidance, in nats a picture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bound: Option<Mean>,
    /// Over the pictures of a prompt, in nats a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_entropy: Option<Mean>,
    /// Expected `top1.rate` of a real picture drawn at random.
    pub chance: f64,
}

impl RetrievalScores {
    /// `entropies` are those of prompts, by their places.
    fn of(scored: &[&Scored], styled: bool, entropies: &BTreeMap<usize, f64>) -> Self {
        let answers = scored.iter().map(|of| of.answer);
        let prompts: BTreeSet<usize> = scored.iter().map(|of| of.place).collect();
        let rate = |hit: fn(&Answer) -> bool| {
            Rate::new(answers.clone().map(hit)).of_independent(prompts.len())
        };
        let mean = |of: fn(&Scored) -> Option<f64>, index: u64| {
            let values = scored
                .iter()
                .filter_map(|scored| Some((scored.place, of(scored)?)));
            Mean::new(values, index)
        };
        let top1 = rate(|a| a.rank == 1);
        let chances: f64 = answers.clone().map(|a| a.chance).sum();
        let mut ranks: Vec<usize> = answers.clone().map(|a| a.rank).collect();
        ranks.sort_unstable();
        let entropies = prompts
            .iter()
            .filter_map(|place| Some((*place, *entropies.get(place)?)));
        let bounded = scored.iter().any(|of| of.bound.is_some());
        RetrievalScores {
            top1,
            top5: rate(|a| a.rank <= 5),
            concept: rate(|a| a.concept),
            style: styled.then(|| rate(|a| a.style)),
            wanted_distance: mean(|of| Some(of.answer.wanted_distance), 0),
            nearest_distance: mean(|of| Some(of.answer.nearest_distance), 1),
            bound: bounded.then(|| mean(|of| of.bound, 2)),
            token_entropy: (entropies.clone().next().is_some()).then(|| Mean::new(entropies, 3)),
            median_rank: ranks
                .get(top1.of.saturating_sub(1) / 2)
                .copied()
                .unwrap_or(0),
            chance: chances / top1.of.max(1) as f64,
        }
    }
}
