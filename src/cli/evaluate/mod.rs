//! `vqdiffusion evaluate`: a model, or pictures of any origin, against real pictures.

mod codec;
mod colours;
mod compare;
mod emoji_args;
mod extraction;
mod likelihood;
mod model;
mod network_args;
mod pictures;
mod retrieval;
mod sweep;

use clap::{Args, Subcommand};

use super::CliResult;

#[derive(Args)]
pub struct EvaluateArgs {
    #[command(subcommand)]
    measure: Measure,
}

#[derive(Subcommand)]
enum Measure {
    /// Ask for real pictures by their captions, and look whether the real picture nearest to
    /// what was made shows the same concept in the same style.
    Retrieval(Box<retrieval::RetrievalArgs>),
    /// Ask for objects in colours, and look whether the made pictures have the hue and the
    /// shape.
    Colours(Box<colours::ColoursArgs>),
    /// Compare two runs of retrieval or colours, picture by picture: what differs between two
    /// samplers or models, with intervals.
    Compare(compare::CompareArgs),
    /// Send the pictures of a data set through the image codec and back: PSNR, SSIM, LPIPS, rFID
    /// and use of the codes.
    Codec(Box<codec::CodecScoreArgs>),
    /// The variational bound on held-out pictures, in bits a token and a dimension.
    Likelihood(Box<likelihood::LikelihoodArgs>),
    /// Compare pictures of any origin with real ones: FID and its kin, FD-DINOv2, CMMD, CLIP
    /// score.
    Pictures(Box<pictures::PicturesArgs>),
    /// Measure a model by a protocol: make pictures as the papers did, compare them with real
    /// ones, and print the row beside the published ones.
    Model(Box<model::ModelArgs>),
    /// Measure a model over steps, guidance, truncation and rules: a table, charts of quality against
    /// cost, and a page with pictures.
    Sweep(Box<sweep::SweepArgs>),
}

pub fn run(args: &EvaluateArgs) -> CliResult {
    match &args.measure {
        Measure::Retrieval(args) => retrieval::run(args),
        Measure::Colours(args) => colours::run(args),
        Measure::Compare(args) => compare::run(args),
        Measure::Codec(args) => codec::run(args),
        Measure::Likelihood(args) => likelihood::run(args),
        Measure::Pictures(args) => pictures::run(args),
        Measure::Model(args) => model::run(args),
        Measure::Sweep(args) => sweep::run(args),
    }
}
