//! Compositions of an object and a colour: whether each of the two is there.

use std::path::PathBuf;

use serde::Serialize;

use super::asked::LabelledSet;
use super::gallery::{standing, Gallery};
use super::labelled::EmojiLabel;
use super::scores::{LabelledScores, Real};
use crate::data::DataError;
use crate::evaluate::rate::Rate;
use crate::picture::Picture;

/// Named colours and their hue angles in degrees.
pub const HUES: [(&str, f64); 7] = [
    ("red", 0.0),
    ("orange", 28.0),
    ("yellow", 50.0),
    ("green", 120.0),
    ("blue", 215.0),
    ("purple", 275.0),
    ("pink", 330.0),
];
/// How far a picture's hue may lie from a colour's to bear its name, in degrees.
pub const NEAR: f64 = 20.0;
/// Other words of colour in the names of things.
const OTHER_WORDS: [&str; 5] = ["brown", "black", "white", "grey", "light"];
/// A pixel counts from this saturation and value on, as the recolouring of objects has it.
const VIVID: (f64, f64) = (0.35, 0.3);
/// Share of vivid pixels below which a picture has no hue.
const LEAST_VIVID: f64 = 0.01;
const BINS: usize = 36;
const BIN: f64 = 360.0 / BINS as f64;

/// The hue angle of a named colour.
pub fn hue_of(colour: &str) -> Option<f64> {
    HUES.iter()
        .find(|(name, _)| *name == colour)
        .map(|(_, hue)| *hue)
}

/// Degrees from one hue to another, −180…180.
fn turn(from: f64, to: f64) -> f64 {
    (to - from + 180.0).rem_euclid(360.0) - 180.0
}

/// Whether `hue` bears the name of the colour at `wanted` degrees.
pub fn bears(hue: f64, wanted: f64) -> bool {
    turn(hue, wanted).abs() <= NEAR
}

/// The name without its words of colour, so that "blue book" and "purple book" are one;
/// a name of such words alone stays.
pub fn object(concept: &str) -> String {
    let colour = |word: &&str| hue_of(word).is_none() && !OTHER_WORDS.contains(word);
    let rest: Vec<&str> = concept.split_whitespace().filter(colour).collect();
    match rest.is_empty() {
        true => concept.to_string(),
        false => rest.join(" "),
    }
}

/// The hue angle that most vivid pixels have: the mean hue around the fullest three of 36
/// neighbouring bins. `None` where fewer than one pixel in a hundred is vivid.
pub fn dominant_hue(picture: &Picture) -> Option<f64> {
    let hues: Vec<f64> = picture.rgb.chunks_exact(3).filter_map(vivid_hue).collect();
    let pixels = picture.rgb.len() / 3;
    if hues.is_empty() || (hues.len() as f64) < LEAST_VIVID * pixels as f64 {
        return None;
    }
    let mut counts = [0usize; BINS];
    for hue in &hues {
        counts[(hue / BIN) as usize % BINS] += 1;
    }
    let around = |bin: usize| {
        (BINS - 1..=BINS + 1)
            .map(|o| counts[(bin + o) % BINS])
            .sum()
    };
    let fullest = (0..BINS)
        .rev()
        .max_by_key(|&bin| -> usize { around(bin) })?;
    let centre = (fullest as f64 + 0.5) * BIN;
    let turns = hues.iter().map(|&hue| turn(centre, hue));
    let near: Vec<f64> = turns.filter(|turn| turn.abs() <= 1.5 * BIN).collect();
    let mean = near.iter().sum::<f64>() / near.len().max(1) as f64;
    Some((centre + mean).rem_euclid(360.0))
}

/// The hue of a pixel of some saturation and value, 0…360.
fn vivid_hue(pixel: &[u8]) -> Option<f64> {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(f64::from);
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    let chroma = most - least;
    if most <= VIVID.1 * 255.0 || chroma <= VIVID.0 * most {
        return None;
    }
    let sector = if most == r {
        (g - b) / chroma
    } else if most == g {
        2.0 + (b - r) / chroma
    } else {
        4.0 + (r - g) / chroma
    };
    Some((60.0 * sector).rem_euclid(360.0))
}

/// What became of one picture.
#[derive(Clone, Debug)]
pub struct ColourAnswer {
    /// Dominant hue in degrees.
    pub hue: Option<f64>,
    /// Whether it bears the name of the wanted colour.
    pub hue_hit: bool,
    /// Place in the gallery of the real picture of the style that is nearest but for hue.
    pub nearest: usize,
    /// Whether that one shows the wanted object, in whatever colour.
    pub shape_hit: bool,
    /// Chance that a picture of the style, drawn from the gallery, shows it.
    pub shape_chance: f64,
}

/// Why a picture cannot be scored.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum ColourError {
    #[error("has no colour")]
    NoColour,
    #[error("colour is {0:?}, expected one of red, orange, yellow, green, blue, purple, pink")]
    Unknown(String),
    #[error("the gallery has no picture of {object:?} in style {style:?}")]
    NoObject { object: String, style: String },
}

/// What a label asks for.
struct Asked {
    hue: f64,
    object: String,
}

/// What the hueless gallery has in the place of each label.
pub struct Objects<'a> {
    gallery: &'a Gallery,
    /// Of each label.
    objects: Vec<String>,
}

impl<'a> Objects<'a> {
    pub fn new(gallery: &'a Gallery) -> Self {
        let objects = gallery.labels.iter().map(|l| object(&l.concept));
        Objects {
            objects: objects.collect(),
            gallery,
        }
    }

    /// Whether `wanted` can be scored.
    pub fn check(&self, wanted: &EmojiLabel) -> Result<(), ColourError> {
        self.asked(wanted).map(|_| ())
    }

    fn asked(&self, wanted: &EmojiLabel) -> Result<Asked, ColourError> {
        let colour = wanted.colour.as_deref().ok_or(ColourError::NoColour)?;
        let hue = hue_of(colour).ok_or_else(|| ColourError::Unknown(colour.into()))?;
        let object = object(&wanted.concept);
        let mut known = self.objects.iter().zip(&self.gallery.labels);
        if !known.any(|(o, label)| *o == object && label.style == wanted.style) {
            return Err(ColourError::NoObject {
                object,
                style: wanted.style.clone(),
            });
        }
        Ok(Asked { hue, object })
    }

    /// Scores each of `pictures`, which should show the object and the colour that `wanted`
    /// says.
    ///
    /// # Errors
    ///
    /// The place of a label that asks for no known colour or object.
    pub fn score(
        &self,
        pictures: &[Picture],
        wanted: &[&EmojiLabel],
    ) -> Result<Vec<ColourAnswer>, (usize, ColourError)> {
        let mut answers = Vec::with_capacity(pictures.len());
        self.gallery.distances(pictures, |n, distances| {
            let answer = self.score_one(&pictures[n], wanted[n], distances);
            answers.push(answer.map_err(|e| (n, e)));
        });
        answers.into_iter().collect()
    }

    fn score_one(
        &self,
        picture: &Picture,
        wanted: &EmojiLabel,
        distances: &[f64],
    ) -> Result<ColourAnswer, ColourError> {
        let asked = self.asked(wanted)?;
        let hue = dominant_hue(picture);
        let of_style: Vec<f64> = distances
            .iter()
            .zip(&self.gallery.labels)
            .map(|(&distance, label)| match label.style == wanted.style {
                true => distance,
                false => f64::INFINITY,
            })
            .collect();
        let right = |place: usize| self.objects[place] == asked.object;
        let nearest = standing(&of_style, |_| true);
        let (Some(found), Some(nearest)) = (standing(&of_style, right), nearest) else {
            return Err(ColourError::NoObject {
                object: asked.object,
                style: wanted.style.clone(),
            });
        };
        let candidates = (0..of_style.len()).filter(|&place| of_style[place].is_finite());
        let (right, wrong): (Vec<usize>, Vec<usize>) = candidates.partition(|&p| right(p));
        Ok(ColourAnswer {
            hue,
            hue_hit: hue.is_some_and(|hue| bears(hue, asked.hue)),
            nearest: if found.rank == 1 { found } else { nearest }.place,
            shape_hit: found.rank == 1,
            shape_chance: right.len() as f64 / (right.len() + wrong.len()) as f64,
        })
    }
}

/// One picture in the report.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColouredPicture {
    pub file: PathBuf,
    /// What it was made for, where that is known.
    pub prompt: Option<String>,
    pub seed: Option<u64>,
    pub concept: String,
    pub style: String,
    pub colour: Option<String>,
    pub hue_hit: bool,
    /// Dominant hue in degrees; null where the picture has none.
    pub hue: Option<f64>,
    pub shape_hit: bool,
    pub both_hit: bool,
    /// The real picture of the style that is nearest but for hue.
    pub nearest: Real,
}

/// Scores every picture of `set` by the gallery of `objects`: what became of each, and
/// the scores.
///
/// # Errors
///
/// A label that asks for no known colour or object, by its line.
pub fn measure(
    set: &LabelledSet,
    objects: &Objects,
) -> Result<
    (
        Vec<ColourAnswer>,
        LabelledScores<ColourScores, ColouredPicture>,
    ),
    DataError,
> {
    let labels = set.labels();
    let answers = objects
        .score(&set.pictures, &labels)
        .map_err(|(n, e)| set.problem(n, e))?;
    let pictures = answers.iter().enumerate().map(|(n, answer)| {
        let (prompt, seed) = set.prompt(n);
        ColouredPicture {
            file: set.files[n].clone(),
            prompt,
            seed,
            concept: labels[n].concept.clone(),
            style: labels[n].style.clone(),
            colour: labels[n].colour.clone(),
            hue_hit: answer.hue_hit,
            hue: answer.hue,
            shape_hit: answer.shape_hit,
            both_hit: answer.hue_hit && answer.shape_hit,
            nearest: (&objects.gallery.labels[answer.nearest]).into(),
        }
    });
    let scores = LabelledScores::new(&labels, &answers, pictures.collect(), |answers| {
        ColourScores::of(answers.iter().copied())
    });
    Ok((answers, scores))
}

/// What became of many pictures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ColourScores {
    /// The dominant hue bears the colour's name.
    pub hue: Rate,
    /// The nearest real picture of the style but for hue shows the object.
    pub shape: Rate,
    pub both: Rate,
    /// Expected `hue.rate` of a hue drawn at random.
    pub hue_chance: f64,
    /// Expected `shape.rate` of a real picture of the style drawn at random.
    pub shape_chance: f64,
}

impl ColourScores {
    pub fn of<'a>(answers: impl Iterator<Item = &'a ColourAnswer> + Clone) -> Self {
        let rate = |hit: fn(&ColourAnswer) -> bool| Rate::new(answers.clone().map(hit));
        let hue = rate(|a| a.hue_hit);
        let chances: f64 = answers.clone().map(|a| a.shape_chance).sum();
        ColourScores {
            hue,
            shape: rate(|a| a.shape_hit),
            both: rate(|a| a.hue_hit && a.shape_hit),
            hue_chance: 2.0 * NEAR / 360.0,
            shape_chance: chances / hue.of.max(1) as f64,
        }
    }
}
