//! Weights that a run starts with: read, drawn, or made of those that are there.

use tch::Tensor;

use crate::checkpoint::official::{CODEC, NULL_TEXT, TEXT};
use crate::checkpoint::Loader;
use crate::torch::params::{is_placeholder, placeholder};
use crate::torch::{Init, WeightSource};
use crate::transformer::DenoiserConfig;

/// How the weights are drawn that meet a text tower which is drawn too. Its features have
/// unit norm, so that the usual N(0, 0.02²) would leave the text √C times weaker in the
/// beginning than what else enters an attention. (The originals never draw a tower.)
fn beside_drawn_text(name: &str, shape: &[i64], init: Init) -> Init {
    let width = |dimension: usize| (shape[dimension] as f64).sqrt();
    let meets_text = [".attn2.key.weight", ".attn2.value.weight"];
    match init {
        Init::Normal(std) if meets_text.iter().any(|end| name.ends_with(end)) => {
            Init::Normal(std * width(1))
        }
        // As long as the features that it stands for.
        Init::Normal(std) if name == NULL_TEXT => Init::Normal(std / width(1)),
        other => other,
    }
}

/// End of the name of a block's table of classes.
const CLASS_TABLE: &str = ".ln2.emb.weight";

/// Ends of the names of the position tables: of the rows, then of the columns.
const POSITION_TABLES: [[&str; 2]; 2] = [
    [".height_emb.weight", ".height_emb"],
    [".width_emb.weight", ".width_emb"],
];

/// A model of one grid that starts from the weights of the same one on another: its position
/// tables are interpolated, as vision transformers are brought to another resolution.
#[derive(Clone, Copy, Debug)]
pub struct OtherGrid {
    /// Rows and columns of the file's tables.
    table: [i64; 2],
}

impl OtherGrid {
    /// From the network `found` in the file to the one `wanted`, where both have one entry of
    /// the tables for each row and column of their grid.
    pub fn between(found: &DenoiserConfig, wanted: &DenoiserConfig) -> Option<Self> {
        let fits = |config: &DenoiserConfig| config.grid == config.position_table;
        (found.grid != wanted.grid && fits(found) && fits(wanted)).then_some(OtherGrid {
            table: found.position_table,
        })
    }

    /// Places of the file's table of this name, if it is one.
    fn places(self, name: &str) -> Option<i64> {
        let is = |ends: &[&str; 2]| ends.iter().any(|end| name.ends_with(end));
        let axis = POSITION_TABLES.iter().position(is)?;
        Some(self.table[axis])
    }
}

/// A table `[…, places, D]` with so many places in place of its own, linearly interpolated
/// between the middles of the cells.
fn interpolated(table: &Tensor, places: i64) -> Tensor {
    let channels = table.flatten(0, -2).transpose(0, 1).unsqueeze(0); // [1, D, places]
    let resized = channels.upsample_linear1d([places], false, None); // [1, D, places']
    let mut shape = table.size();
    let axis = shape.len() - 2;
    shape[axis] = places;
    resized
        .squeeze_dim(0)
        .transpose(0, 1)
        .contiguous()
        .view(shape.as_slice())
}

/// Weights of the files where they are wanted from there, else drawn ones.
pub struct StartWeights<'a> {
    pub loader: &'a Loader<'a>,
    /// Where the drawn ones come from.
    pub drawn: &'a dyn WeightSource,
    /// Which weights are drawn: those of the denoiser, of the text tower, of the learned
    /// null text.
    pub drawn_denoiser: bool,
    pub drawn_text: bool,
    pub drawn_null: bool,
    /// Whether the class tables get a row more than the file's.
    pub added_null_class: bool,
    /// Whether the file's model has another grid.
    pub other_grid: Option<OtherGrid>,
}

impl WeightSource for StartWeights<'_> {
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        let random = if name.starts_with(CODEC) {
            false
        } else if name.starts_with(TEXT) {
            self.drawn_text
        } else {
            self.drawn_denoiser || (name == NULL_TEXT && self.drawn_null)
        };
        if self.added_null_class && name.ends_with(CLASS_TABLE) {
            // Starts as the mean of the classes, which stood for "no class" before.
            let rows = self.loader.weight(name, &[shape[0] - 1, shape[1]], init);
            if is_placeholder(&rows) {
                return placeholder(shape);
            }
            let mean = rows.mean_dim(0, true, rows.kind()); // [1, D]
            return Tensor::cat(&[rows, mean], 0);
        }
        if let Some(places) = self.other_grid.and_then(|grid| grid.places(name)) {
            let mut of_file = shape.to_vec();
            let axis = shape.len() - 2;
            of_file[axis] = places;
            let table = self.loader.weight(name, &of_file, init);
            return match is_placeholder(&table) {
                true => placeholder(shape),
                false => interpolated(&table, shape[axis]),
            };
        }
        match (random, self.drawn_denoiser && self.drawn_text) {
            (false, _) => self.loader.weight(name, shape, init),
            (true, false) => self.drawn.weight(name, shape, init),
            (true, true) => self
                .drawn
                .weight(name, shape, beside_drawn_text(name, shape, init)),
        }
    }
}
