//! Samples of a token cache with the conditions of a model.

use std::path::Path;

use tch::Tensor;

use super::cache::TokenCache;
use super::dataset::{Epoch, Item};
use super::error::DataError;
use super::rows::Rows;
use crate::clip::ClipTokenizer;
use crate::random::{below, sample_generator, TrainingDraw};

/// What a model is conditioned on.
pub enum Conditions {
    /// Captions, as ids of the tokenizer.
    Text(Box<ClipTokenizer>),
    /// Labels.
    Class,
    Nothing,
}

impl Conditions {
    /// Whether all of `items`, which are those of the data set at `path`, have what is
    /// needed.
    pub fn check(&self, path: &Path, items: &[Item]) -> Result<(), DataError> {
        let lacks = |item: &&Item| match self {
            Conditions::Text(_) => item.captions.is_empty(),
            Conditions::Class => item.label.is_none(),
            Conditions::Nothing => false,
        };
        let mut lacking = items.iter().filter(lacks);
        let Some(first) = lacking.next() else {
            return Ok(());
        };
        let what = match self {
            Conditions::Text(_) => "caption",
            Conditions::Class | Conditions::Nothing => "label",
        };
        let problem = format!(
            "{} of {} pictures have no {what}; the first: {}",
            1 + lacking.count(),
            items.len(),
            first.picture
        );
        Err(DataError::format(path, problem))
    }

    /// The samples of an epoch over `items`: captions are gone through only where the
    /// model sees them.
    pub fn rows(&self, epoch: Epoch, items: &[Item]) -> Rows {
        match self {
            Conditions::Text(_) => Rows::new(epoch, items),
            Conditions::Class | Conditions::Nothing => Rows::new(Epoch::Pictures, items),
        }
    }

    /// Adds the condition of `item` to the rows of a batch: the ids of one of its
    /// captions, or its label.
    pub fn push(
        &self,
        item: &Item,
        caption: usize,
        ids: &mut Vec<i64>,
        labels: &mut Vec<i64>,
    ) -> Result<(), DataError> {
        match self {
            Conditions::Text(tokenizer) => {
                let caption = item.captions[caption].as_str();
                let encoding = tokenizer.encode(caption).map_err(|source| {
                    let caption = caption.to_string();
                    DataError::Caption { caption, source }
                })?;
                ids.extend(encoding.ids);
            }
            Conditions::Class => labels.extend(item.label),
            Conditions::Nothing => {}
        }
        Ok(())
    }
}

/// Tokens `[B, L]`, text ids `[B, S]` and labels `[B]`, all int64.
pub type Selected = (Tensor, Option<Tensor>, Option<Tensor>);

/// A token cache whose items have what the model is conditioned on.
pub struct CachedSamples {
    cache: TokenCache,
    conditions: Conditions,
    rows: Rows,
}

impl CachedSamples {
    /// # Errors
    ///
    /// Items without the caption or label that the model needs.
    pub fn new(cache: TokenCache, conditions: Conditions) -> Result<Self, DataError> {
        let items = cache.items();
        conditions.check(cache.folder(), items)?;
        let rows = conditions.rows(cache.header().epoch, items);
        Ok(CachedSamples {
            cache,
            conditions,
            rows,
        })
    }

    pub fn cache(&self) -> &TokenCache {
        &self.cache
    }

    /// Samples per epoch.
    pub fn len(&self) -> u64 {
        self.rows.len()
    }

    /// Never: a cache without items is refused.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The samples at `rows`. View and caption are drawn for (seed, global sample
    /// indices), or the first ones.
    pub fn select(
        &self,
        rows: &[u64],
        drawn: Option<(u64, &[u64])>,
    ) -> Result<Selected, DataError> {
        let choose = |n: usize, draw: TrainingDraw, count: usize| match drawn {
            Some((seed, samples)) => {
                below(&mut sample_generator(seed, samples[n], draw), count as u64) as usize
            }
            None => 0,
        };
        let views = self.cache.header().recipe.views as usize;
        let mut tokens = Vec::with_capacity(rows.len() * self.cache.tokens_per_image());
        let (mut ids, mut labels) = (Vec::new(), Vec::new());
        for (n, &row) in rows.iter().enumerate() {
            let row = self.rows.at(row);
            let view = choose(n, TrainingDraw::View, views);
            tokens.extend(self.cache.tokens(row.item, view)?);
            let item = &self.cache.items()[row.item];
            let caption = row
                .caption
                .unwrap_or_else(|| choose(n, TrainingDraw::Caption, item.captions.len().max(1)));
            self.conditions.push(item, caption, &mut ids, &mut labels)?;
        }
        let batch = rows.len() as i64;
        let rows_of = |values: &[i64]| Tensor::from_slice(values).view([batch, -1]);
        Ok((
            rows_of(&tokens),
            (!ids.is_empty()).then(|| rows_of(&ids)),
            (!labels.is_empty()).then(|| Tensor::from_slice(&labels)),
        ))
    }
}
