//! The weights of a codec in training, with its codebook.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use tch::{Device, Kind, Tensor};

use super::config::{CodecTrainConfig, Trained};
use crate::checkpoint::decoder::is_behind_codes;
use crate::checkpoint::official::CODEC;
use crate::checkpoint::{Entry, LoadError, StateDict};
use crate::codec::codebook::EmaCodebook;
use crate::codec::{CodecConfig, ImageCodec};
use crate::random::{sample_generator, unit, TrainingDraw};
use crate::ranks::Ranks;
use crate::torch::params::RandomWeights;
use crate::torch::{Init, Params, WeightSource};
use crate::train::engine::{Parameters, TrainableWeights};
use crate::train::TrainError;

/// Vectors per entry that k-means is given.
const VECTORS_PER_ENTRY: i64 = 32;

/// A codec in training.
pub struct CodecWeights {
    shape: CodecConfig,
    config: CodecTrainConfig,
    device: Device,
    /// All weights but the codebook by canonical name, leaf tensors in f32.
    pub all: Parameters,
    pub codebook: EmaCodebook,
    /// The step before which the codebook started, 0 if this run or process found it
    /// started; none while nothing is quantized.
    codebook_since: Option<u64>,
}

/// Weights with an output (dimension 0) or an input (1) for each latent channel.
const PRICE_WEIGHTS: [(&str, i64); 3] = [
    ("quant_conv.weight", 0),
    ("quant_conv.bias", 0),
    ("post_quant_conv.weight", 1),
];

/// The name of the codebook's table.
fn table_name() -> String {
    format!("{CODEC}.quantize.embedding")
}

/// Answers for the codebook's table, and leaves the rest to `others`.
struct WithTable<'a> {
    table: &'a Tensor,
    others: &'a dyn WeightSource,
}

impl WeightSource for WithTable<'_> {
    fn weight(&self, name: &str, shape: &[i64], init: Init) -> Tensor {
        if name == table_name() {
            self.table.shallow_clone()
        } else {
            self.others.weight(name, shape, init)
        }
    }
}

impl CodecWeights {
    /// The weights of `source`, and a codebook that is yet to start.
    pub(super) fn new(
        shape: &CodecConfig,
        config: &CodecTrainConfig,
        source: &dyn WeightSource,
        device: Device,
    ) -> Self {
        let table_shape = [shape.codebook, shape.embedding_width];
        let table = Params::new(source, device, Kind::Float).get(
            &table_name(),
            &table_shape,
            Init::Normal(1.0),
        );
        let trainable = TrainableWeights::new(source, device);
        let weights = WithTable {
            table: &table,
            others: &trainable,
        };
        build(shape, &weights, device, Kind::Float);
        let all = trainable.into_parameters();
        for (name, tensor) in &all.tensors {
            let _ = tensor.set_requires_grad(is_trained(config.trained, name));
        }
        CodecWeights {
            shape: shape.clone(),
            config: config.clone(),
            device,
            all,
            codebook: EmaCodebook::new(table),
            codebook_since: None,
        }
    }

    /// Drawn weights.
    pub fn drawn(shape: &CodecConfig, config: &CodecTrainConfig, device: Device) -> Self {
        let weights = Self::new(shape, config, &RandomWeights, device);
        weights.clear_around_prices(Tensor::detach);
        weights
    }

    /// Those weights that are trained; they share the memory of these.
    pub fn trained(&self) -> Parameters {
        self.all.only(|name| is_trained(self.config.trained, name))
    }

    /// `part` of each weight that leads to or from the channel of the prices, itself or its
    /// gradient, with the weight's name; nothing where codes have no prices.
    fn around_prices(&self, part: fn(&Tensor) -> Tensor) -> Vec<(String, Tensor)> {
        if self.config.codebook.entropy.is_none() {
            return Vec::new();
        }
        let names = PRICE_WEIGHTS.map(|(name, dimension)| (format!("{CODEC}.{name}"), dimension));
        let parts = names.into_iter().filter_map(|(name, dimension)| {
            let part = part(self.all.tensors.get(&name)?);
            part.defined()
                .then(|| (name, part.select(dimension, self.shape.embedding_width - 1)))
        });
        parts.collect()
    }

    pub(super) fn clear_around_prices(&self, part: fn(&Tensor) -> Tensor) {
        for (_, mut channel) in self.around_prices(part) {
            let _ = channel.zero_();
        }
    }

    /// Whether the channel of the prices, if codes have prices, is free for them in weights
    /// read from `path`.
    pub(super) fn check_price_channel(&self, path: &Path) -> Result<(), LoadError> {
        for (name, channel) in self.around_prices(Tensor::detach) {
            if channel.count_nonzero(None).int64_value(&[]) > 0 {
                return Err(LoadError::Format {
                    path: path.to_path_buf(),
                    problem: format!(
                        "its last latent channel is in use ({name}), but train.codebook.entropy \
                         needs it for the prices of codes: start from a codec that was trained \
                         with it, or anew"
                    ),
                });
            }
        }
        Ok(())
    }

    /// Goes on with the entries that the run started with, and with their running counts
    /// `[N]` and sums `[N, E]`; without these, as if all had been used alike. Entries that
    /// nothing was ever counted for are no codebook yet.
    pub fn keep_codebook(&mut self, statistics: Option<(Tensor, Tensor)>) {
        let side = self.shape.resolution / self.shape.factor();
        let batch = self.config.effective_batch() as i64 * side * side;
        match statistics {
            Some((counts, sums)) => self.codebook.continue_with(&counts, &sums),
            None => self.codebook.continue_with_equal(batch as f64),
        }
        self.find_codebook();
    }

    /// Looks whether the codebook has started.
    pub(super) fn find_codebook(&mut self) {
        self.codebook_since = self.codebook.is_started().then_some(0);
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn shape(&self) -> &CodecConfig {
        &self.shape
    }

    /// The codec with the present weights, which it shares, computing in `kind`.
    pub fn codec(&self, kind: Kind) -> ImageCodec {
        let weights = WithTable {
            table: &self.codebook.embedding,
            others: &self.all,
        };
        build(&self.shape, &weights, self.device, kind)
    }

    /// The entries, where pictures are quantized already.
    pub fn table(&self) -> Option<&Tensor> {
        self.codebook_since.map(|_| &self.codebook.embedding)
    }

    /// Whether pictures are quantized already.
    pub(super) fn has_codebook(&self) -> bool {
        self.codebook_since.is_some()
    }

    /// Whether the codebook starts before the step that follows `step` steps.
    pub fn starts_codebook(&self, step: u64) -> bool {
        !self.has_codebook() && step >= self.config.codebook.start
    }

    /// Whether the codebook had started before that step began.
    pub(super) fn revives_after(&self, step: u64) -> bool {
        self.codebook_since.is_some_and(|since| step > since)
    }

    /// Encoder output of `pictures`, uint8 `[B, 3, H, W]`: `[P, E]` f32.
    pub(super) fn latents(&self, pictures: &Tensor) -> Tensor {
        let _no_grad = tch::no_grad_guard();
        let kind = self.config.precision.kind();
        let x = self.input(pictures).to_kind(kind);
        self.codec(kind).training_pass(&x, None).latents
    }

    /// Vectors that the codebook starts from, at least.
    pub(super) fn vectors_to_start_from(&self) -> i64 {
        VECTORS_PER_ENTRY * self.shape.codebook
    }

    /// Starts the codebook before the step that follows `step` steps, from `latents` `[P, E]`
    /// of all processes, `batch` vectors a step. The first process does it for all, so that
    /// all have the same. A break says that it was asked to stop, and nothing has changed.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub(super) fn start_codebook(
        &mut self,
        step: u64,
        latents: &Tensor,
        batch: f64,
        ranks: &Ranks,
        stop: &AtomicBool,
    ) -> Result<ControlFlow<()>, TrainError> {
        let mut stopped = false;
        if ranks.is_first() {
            let mut generator = sample_generator(self.config.seed, step, TrainingDraw::Codebook);
            let mut uniform = || unit(&mut generator);
            let started = self.codebook.start_from(latents, batch, &mut uniform, stop);
            stopped = started.is_break();
        }
        if ranks.any(stopped)? {
            return Ok(ControlFlow::Break(()));
        }
        self.share_codebook(ranks)?;
        self.codebook_since = Some(step);
        Ok(ControlFlow::Continue(()))
    }

    /// Moves the dead entries after the step that follows `step` steps to vectors of
    /// `latents` `[P, E]`, those of this process: the first process does it for all, with the
    /// vectors of all. Returns how many moved.
    ///
    /// # Errors
    ///
    /// A process that is gone.
    pub(super) fn revive(
        &mut self,
        step: u64,
        latents: &Tensor,
        ranks: &Ranks,
    ) -> Result<i64, TrainError> {
        let below = self.config.codebook.revive_below;
        if !self.codebook.has_dead(below) {
            return Ok(0);
        }
        let latents = ranks.gathered(latents)?;
        let mut revived = 0;
        if ranks.is_first() {
            let mut generator = sample_generator(self.config.seed, step, TrainingDraw::Codebook);
            let mut uniform = || unit(&mut generator);
            let latents = latents.to_device(self.device);
            revived = self.codebook.revive(&latents, below, &mut uniform);
        }
        self.share_codebook(ranks)?;
        Ok(ranks.of_first(revived as f64)? as i64)
    }

    /// Gives all processes the codebook of the first.
    pub(super) fn share_codebook(&self, ranks: &Ranks) -> Result<(), TrainError> {
        let tensors = self.codebook_tensors().map(|(_, tensor)| tensor);
        Ok(ranks.share_of_first(&tensors)?)
    }

    /// The codebook's tensors, as they are called below `quantize`.
    pub(super) fn codebook_tensors(&self) -> [(&'static str, &Tensor); 3] {
        let book = &self.codebook;
        [
            ("embedding", &book.embedding),
            ("cluster_size", &book.cluster_size),
            ("embedding_avg", &book.embedding_avg),
        ]
    }

    /// The codec's tensors by canonical name.
    pub fn codec_state(&self) -> Result<StateDict, LoadError> {
        let mut state = StateDict::default();
        for (name, tensor) in &self.all.tensors {
            state.insert(name.clone(), Entry::in_memory(name, tensor)?);
        }
        for (name, tensor) in self.codebook_tensors() {
            let name = format!("{CODEC}.quantize.{name}");
            let entry = Entry::in_memory(&name, tensor)?;
            state.insert(name, entry);
        }
        Ok(state)
    }

    /// uint8 `[B, 3, H, W]` → f32 in −1…1 on the device, in the same order in memory.
    pub(super) fn input(&self, pictures: &Tensor) -> Tensor {
        pictures
            .to_device(self.device)
            .to_kind(Kind::Float)
            .contiguous()
            / 127.5
            - 1.0
    }
}

fn is_trained(trained: Trained, name: &str) -> bool {
    match trained {
        Trained::Whole => true,
        Trained::Decoder => is_behind_codes(name),
    }
}

fn build(
    shape: &CodecConfig,
    weights: &dyn WeightSource,
    device: Device,
    kind: Kind,
) -> ImageCodec {
    let root = Params::new(weights, device, kind);
    ImageCodec::new(&root.at(CODEC), shape, None)
}
