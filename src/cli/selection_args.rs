//! Arguments that say which of several candidates are kept.

use std::error::Error;
use std::path::PathBuf;

use clap::Args;
use tch::Device;

use super::arguments::whole;
use super::choices;
use crate::pipeline::{Ranking, Selection};

#[derive(Args)]
#[command(next_help_heading = "Selection")]
pub struct SelectionArgs {
    /// Rank candidates: by how CLIP sees picture and prompt together, or by the probability
    /// that a classifier of ImageNet gives the class.
    #[arg(long, value_parser = choices::ranking())]
    rerank: Option<Ranking>,

    /// Weights of the ranking network: ViT-B-32.pt of CLIP, or a ResNet of torchvision
    /// (resnet101-63fe2227.pth).
    #[arg(long, value_name = "FILE")]
    rerank_weights: Option<PathBuf>,

    /// Make N candidates for every picture and keep the best: of the candidates of a prompt or
    /// class as many as pictures of it are asked for.
    #[arg(long, value_name = "N", value_parser = whole::<usize>(2..=100_000))]
    best_of: Option<usize>,

    /// Keep this share of the candidates, in (0, 1): 0.05 is --best-of 20.
    #[arg(long, value_name = "RATE", conflicts_with = "best_of")]
    acceptance: Option<f64>,
}

impl SelectionArgs {
    /// Candidates for every picture, if the command line says how many.
    fn candidates(&self) -> Result<Option<usize>, String> {
        match self.acceptance {
            None => Ok(self.best_of),
            Some(rate) if rate > 0.0 && rate <= 0.5 => Ok(Some((1.0 / rate).round() as usize)),
            Some(rate) => Err(format!(
                "--acceptance is {rate}, expected above 0, at most 0.5"
            )),
        }
    }

    /// What is asked for here, else by `usual`: what ranks, and how many candidates.
    pub fn asked(
        &self,
        usual: Option<(Ranking, usize)>,
    ) -> Result<Option<(Ranking, usize)>, String> {
        let usual = usual.unzip();
        let ranking = self.rerank.or(usual.0);
        let candidates = self.candidates()?.or(usual.1);
        match (ranking, candidates) {
            (Some(ranking), Some(candidates)) if candidates > 1 => Ok(Some((ranking, candidates))),
            (Some(_), _) => Err("--rerank: give --best-of or --acceptance with it".into()),
            (None, Some(_)) => Err(
                "--best-of, --acceptance: give --rerank with it, which says what is best".into(),
            ),
            (None, None) if self.rerank_weights.is_some() => {
                Err("--rerank-weights: give --rerank with it".into())
            }
            (None, None) => Ok(None),
        }
    }

    /// Opens the ranking network.
    pub fn open(
        &self,
        asked: Option<(Ranking, usize)>,
        device: Device,
    ) -> Result<Option<Selection>, Box<dyn Error>> {
        let Some((ranking, candidates)) = asked else {
            return Ok(None);
        };
        let weights = self.rerank_weights.as_deref();
        let weights = weights.ok_or("no --rerank-weights: ranking needs the network's file")?;
        Ok(Some(Selection::open(ranking, weights, candidates, device)?))
    }
}
