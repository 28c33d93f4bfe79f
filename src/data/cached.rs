//! Samples of a token cache with the conditions of a model.

use tch::Tensor;

use super::cache::TokenCache;
use super::dataset::{Epoch, Item};
use super::error::DataError;
use super::order::below;
use super::rows::Rows;
use crate::clip::ClipTokenizer;
use crate::diffusion::noise::{sample_generator, TrainingDraw};

/// What a model is conditioned on.
pub enum Conditions {
    /// Captions, as ids of the tokenizer.
    Text(Box<ClipTokenizer>),
    /// Labels.
    Class,
    Nothing,
}

impl Conditions {
    /// Whether all items have what is needed; the problem if not.
    pub fn check(&self, items: &[Item]) -> Result<(), String> {
        let (what, lacking) = match self {
            Conditions::Text(_) => (
                "caption",
                items.iter().filter(|i| i.captions.is_empty()).count(),
            ),
            Conditions::Class => ("label", items.iter().filter(|i| i.label.is_none()).count()),
            Conditions::Nothing => ("", 0),
        };
        match lacking {
            0 => Ok(()),
            _ => Err(format!(
                "{lacking} of {} pictures have no {what}",
                items.len()
            )),
        }
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
    /// captions (the empty text's if `dropped`), or its label.
    pub fn push(
        &self,
        item: &Item,
        caption: usize,
        dropped: bool,
        ids: &mut Vec<i64>,
        labels: &mut Vec<i64>,
    ) -> Result<(), DataError> {
        match self {
            Conditions::Text(tokenizer) => {
                let caption = match dropped {
                    true => "",
                    false => item.captions[caption].as_str(),
                };
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
        conditions
            .check(items)
            .map_err(|problem| DataError::format(cache.folder(), problem))?;
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

    /// The samples at `rows`; the text of those in `dropped` is empty. View and caption
    /// are drawn for (seed, global sample indices), or the first ones.
    pub fn select(
        &self,
        rows: &[u64],
        dropped: &[bool],
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
            self.conditions
                .push(item, caption, dropped[n], &mut ids, &mut labels)?;
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
