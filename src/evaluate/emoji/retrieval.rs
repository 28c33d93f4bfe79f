//! Retrieval: is the real picture nearest to the made one the one asked for?

use std::path::PathBuf;

use serde::Serialize;

use super::asked::LabelledSet;
use super::gallery::{standing, Gallery, Standing};
use super::labelled::EmojiLabel;
use super::scores::{LabelledScores, Real};
use crate::data::DataError;
use crate::evaluate::rate::Rate;
use crate::picture::Picture;

/// What became of one picture.
#[derive(Clone, Debug)]
pub struct Answer {
    /// 1 if the nearest real picture has the concept and the style ([`Standing::rank`]).
    pub rank: usize,
    /// Whether the nearest one has the concept, or the style.
    pub concept: bool,
    pub style: bool,
    /// Place in the gallery of the nearest, and of the nearest with concept and style.
    pub nearest: usize,
    pub wanted: usize,
    /// Their distances in 8-bit steps.
    pub nearest_distance: f64,
    pub wanted_distance: f64,
    /// Chance that a picture drawn from the gallery has concept and style.
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
    gallery: &Gallery,
) -> Result<Vec<Answer>, usize> {
    let mut answers = Vec::with_capacity(pictures.len());
    gallery.distances(pictures, |n, distances| {
        answers.push(answer(distances, wanted[n], gallery).ok_or(n));
    });
    answers.into_iter().collect()
}

fn answer(distances: &[f64], wanted: &EmojiLabel, gallery: &Gallery) -> Option<Answer> {
    let concept = |place: usize| gallery.labels[place].concept == wanted.concept;
    let style = |place: usize| gallery.labels[place].style == wanted.style;
    let both = |place: usize| concept(place) && style(place);
    let found = standing(distances, both)?;
    let nearest = match found.rank {
        1 => found,
        _ => standing(distances, |_| true)?,
    };
    let first = |standing: Option<Standing>| standing.is_some_and(|s| s.rank == 1);
    let right = (0..distances.len()).filter(|&place| both(place)).count();
    Some(Answer {
        rank: found.rank,
        concept: first(standing(distances, concept)),
        style: first(standing(distances, style)),
        nearest: nearest.place,
        wanted: found.place,
        nearest_distance: distances[nearest.place].sqrt(),
        wanted_distance: distances[found.place].sqrt(),
        chance: right as f64 / distances.len() as f64,
    })
}

/// One picture in the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetrievedPicture {
    pub file: PathBuf,
    pub concept: String,
    pub style: String,
    pub hit: bool,
    /// 1 more than the number of real pictures nearer than the nearest with concept and style.
    pub rank: usize,
    pub nearest: Real,
    pub nearest_distance: f64,
    pub wanted: Real,
    pub wanted_distance: f64,
}

/// Why `label` cannot be looked for.
pub fn absent(label: &EmojiLabel) -> String {
    format!(
        "the gallery has no picture of {:?} in style {:?}",
        label.concept, label.style
    )
}

/// Looks for every picture of `set` in `gallery`: what became of each, and the scores.
///
/// # Errors
///
/// A picture that has no counterpart in the gallery, by its line.
pub fn measure(
    set: &LabelledSet,
    gallery: &Gallery,
) -> Result<
    (
        Vec<Answer>,
        LabelledScores<RetrievalScores, RetrievedPicture>,
    ),
    DataError,
> {
    let labels = set.labels();
    let answers =
        retrieve(&set.pictures, &labels, gallery).map_err(|n| set.problem(n, absent(labels[n])))?;
    let real = |place: usize| Real::from(&gallery.labels[place]);
    let pictures = answers
        .iter()
        .enumerate()
        .map(|(n, answer)| RetrievedPicture {
            file: set.files[n].clone(),
            concept: labels[n].concept.clone(),
            style: labels[n].style.clone(),
            hit: answer.rank == 1,
            rank: answer.rank,
            nearest: real(answer.nearest),
            nearest_distance: answer.nearest_distance,
            wanted: real(answer.wanted),
            wanted_distance: answer.wanted_distance,
        });
    let scores = LabelledScores::new(&labels, &answers, pictures.collect(), |answers| {
        RetrievalScores::of(answers.iter().copied())
    });
    Ok((answers, scores))
}

/// What became of many pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RetrievalScores {
    /// The nearest real picture has concept and style.
    pub top1: Rate,
    /// One of the five nearest has.
    pub top5: Rate,
    /// The nearest one has the concept, in whatever style.
    pub concept: Rate,
    /// The nearest one has the style, whatever it shows.
    pub style: Rate,
    /// Median of [`Answer::rank`], the lower one of two: it tells weak models apart.
    pub median_rank: usize,
    /// Expected `top1.rate` of a real picture drawn at random.
    pub chance: f64,
}

impl RetrievalScores {
    pub fn of<'a>(answers: impl Iterator<Item = &'a Answer> + Clone) -> Self {
        let rate = |hit: fn(&Answer) -> bool| Rate::new(answers.clone().map(hit));
        let top1 = rate(|a| a.rank == 1);
        let chances: f64 = answers.clone().map(|a| a.chance).sum();
        let mut ranks: Vec<usize> = answers.clone().map(|a| a.rank).collect();
        ranks.sort_unstable();
        RetrievalScores {
            top1,
            top5: rate(|a| a.rank <= 5),
            concept: rate(|a| a.concept),
            style: rate(|a| a.style),
            median_rank: ranks
                .get(top1.of.saturating_sub(1) / 2)
                .copied()
                .unwrap_or(0),
            chance: chances / top1.of.max(1) as f64,
        }
    }
}
