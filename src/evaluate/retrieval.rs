//! Nearest real pictures: which of a gallery a picture is closest to.

use serde::Serialize;
use tch::{IndexOp, Tensor};

use super::labelled::{Label, LabelledFolder};
use super::pyramid::{features, squared_distances, View};
use super::rate::Rate;
use crate::data::DataError;
use crate::picture::Picture;

/// Queries compared at a time, which bounds the memory.
const QUERIES: i64 = 256;
/// Squared distances that differ by less, in squared 8-bit steps, are equal: those of equal
/// pictures differ by rounding.
const EQUAL: f64 = 1e-6;

/// Real pictures to look among.
pub struct Gallery {
    pub labels: Vec<Label>,
    pub pictures: Vec<Picture>,
    /// f64 `[G, D]`
    features: Tensor,
    pub view: View,
}

impl Gallery {
    /// All pictures of `folders`.
    pub fn open(folders: &[LabelledFolder], view: View) -> Result<Self, DataError> {
        let (mut labels, mut pictures) = (Vec::new(), Vec::new());
        for folder in folders {
            let all: Vec<usize> = (0..folder.labels.len()).collect();
            pictures.extend(folder.pictures(&all)?);
            labels.extend(folder.labels.iter().cloned());
        }
        Ok(Gallery {
            features: features(&pictures, view),
            labels,
            pictures,
            view,
        })
    }

    /// Whether some picture has the concept and the style of `label`.
    pub fn shows(&self, label: &Label) -> bool {
        let same = |l: &Label| l.concept == label.concept && l.style == label.style;
        self.labels.iter().any(same)
    }

    /// Squared distances of every one of `pictures` to all of the gallery, in their order.
    pub fn distances(&self, pictures: &[Picture], mut each: impl FnMut(usize, &[f64])) {
        let queries = features(pictures, self.view);
        for (n, queries) in queries.split(QUERIES, 0).iter().enumerate() {
            let distances = squared_distances(queries, &self.features); // [≤QUERIES, G]
            for row in 0..queries.size()[0] {
                let mut values = vec![0.0; self.labels.len()];
                let length = values.len();
                distances.i(row).copy_data(&mut values, length);
                each(n * QUERIES as usize + row as usize, &values);
            }
        }
    }
}

/// Where the nearest right one of some candidates stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// 1 more than the number of candidates that are nearer. Equal distances do not count
    /// as nearer: two names of one picture are both right.
    pub rank: usize,
    /// Place of the nearest right candidate.
    pub place: usize,
}

/// The standing of the right ones by their squared `distances`; those of infinite distance
/// are no candidates. `None` where none is right.
pub fn standing(distances: &[f64], right: impl Fn(usize) -> bool) -> Option<Standing> {
    let candidates = || distances.iter().enumerate().filter(|(_, d)| d.is_finite());
    let (place, wanted) = candidates()
        .filter(|(place, _)| right(*place))
        .min_by(|a, b| a.1.total_cmp(b.1))?;
    let nearer = candidates().filter(|(_, d)| **d < wanted - EQUAL).count();
    Some(Standing {
        rank: nearer + 1,
        place,
    })
}

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
    wanted: &[&Label],
    gallery: &Gallery,
) -> Result<Vec<Answer>, usize> {
    let mut answers = Vec::with_capacity(pictures.len());
    gallery.distances(pictures, |n, distances| {
        answers.push(answer(distances, wanted[n], gallery).ok_or(n));
    });
    answers.into_iter().collect()
}

fn answer(distances: &[f64], wanted: &Label, gallery: &Gallery) -> Option<Answer> {
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

/// What became of many pictures.
#[derive(Clone, Debug, Serialize)]
pub struct Scores {
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

impl Scores {
    pub fn of<'a>(answers: impl Iterator<Item = &'a Answer> + Clone) -> Self {
        let rate = |hit: fn(&Answer) -> bool| Rate::new(answers.clone().map(hit));
        let top1 = rate(|a| a.rank == 1);
        let chances: f64 = answers.clone().map(|a| a.chance).sum();
        let mut ranks: Vec<usize> = answers.clone().map(|a| a.rank).collect();
        ranks.sort_unstable();
        Scores {
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
