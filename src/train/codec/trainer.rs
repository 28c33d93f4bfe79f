//! One step of codec training.

use std::path::Path;

use tch::{Device, Kind, Tensor};

use super::config::{CodecTrainConfig, Reconstruction, Trained};
use crate::checkpoint::decoder::is_behind_codes;
use crate::checkpoint::official::CODEC;
use crate::checkpoint::LoadError;
use crate::codec::codebook::{CodeStatistics, EmaCodebook};
use crate::codec::{CodecConfig, ImageCodec};
use crate::diffusion::noise::{sample_generator, unit, TrainingDraw};
use crate::torch::params::RandomWeights;
use crate::torch::{Init, Params, WeightSource};
use crate::train::learning_rate::LearningRate;
use crate::train::optimizer::{clip, gradient_norm, Optimizer};
use crate::train::parameters::{Parameters, TrainableWeights};

/// Vectors per entry that k-means is given.
const VECTORS_PER_ENTRY: i64 = 32;

/// Codec, optimizer and codebook of a run: what a checkpoint holds.
pub struct CodecTrainer {
    shape: CodecConfig,
    config: CodecTrainConfig,
    device: Device,
    /// All weights but the codebook by canonical name, leaf tensors in f32.
    pub parameters: Parameters,
    /// Those of them that are trained.
    trained: Parameters,
    pub codebook: EmaCodebook,
    pub optimizer: Optimizer,
    pub learning_rate: LearningRate,
    /// Steps made.
    pub step: u64,
    /// The step before which the codebook started, 0 if this run or process found it
    /// started; none while nothing is quantized.
    codebook_since: Option<u64>,
}

/// Outcome of a step; scalars on the device.
pub struct CodecStep {
    pub reconstruction: Tensor,
    /// Mean (z − e)², the prices of codes included.
    pub commitment: Tensor,
    /// How often each code occurs in the batch, `[N]`, if quantized.
    pub usage: Option<Tensor>,
    pub gradient_norm: f64,
    /// Entries that were moved.
    pub revived: i64,
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

impl CodecTrainer {
    /// A run's start with the weights of `source`, and a codebook that is yet to start.
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
        let parameters = trainable.into_parameters();
        let trained = parameters.only(|name| match config.trained {
            Trained::Whole => true,
            Trained::Decoder => is_behind_codes(name),
        });
        for (name, tensor) in &parameters.tensors {
            let _ = tensor.set_requires_grad(trained.tensors.contains_key(name));
        }
        CodecTrainer {
            shape: shape.clone(),
            config: config.clone(),
            device,
            optimizer: Optimizer::new(&config.optimizer, &trained),
            parameters,
            trained,
            codebook: EmaCodebook::new(table),
            learning_rate: LearningRate::new(&config.learning_rate, false),
            step: 0,
            codebook_since: None,
        }
    }

    /// A run's start with drawn weights.
    pub fn drawn(shape: &CodecConfig, config: &CodecTrainConfig, device: Device) -> Self {
        let trainer = Self::new(shape, config, &RandomWeights, device);
        trainer.clear_around_prices(Tensor::detach);
        trainer
    }

    /// `part` of each weight that leads to or from the channel of the prices, itself or its
    /// gradient, with the weight's name; nothing where codes have no prices.
    fn around_prices(&self, part: fn(&Tensor) -> Tensor) -> Vec<(String, Tensor)> {
        if self.config.codebook.entropy.is_none() {
            return Vec::new();
        }
        let names = PRICE_WEIGHTS.map(|(name, dimension)| (format!("{CODEC}.{name}"), dimension));
        let parts = names.into_iter().filter_map(|(name, dimension)| {
            let part = part(self.parameters.tensors.get(&name)?);
            part.defined()
                .then(|| (name, part.select(dimension, self.shape.embedding_width - 1)))
        });
        parts.collect()
    }

    fn clear_around_prices(&self, part: fn(&Tensor) -> Tensor) {
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
        let batch = self.config.batch_size as i64 * side * side;
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

    /// Values of the trained weights.
    pub fn trained_values(&self) -> u64 {
        self.trained.numel()
    }

    pub fn device(&self) -> Device {
        self.device
    }

    pub fn shape(&self) -> &CodecConfig {
        &self.shape
    }

    /// The codec with the present weights, which it shares, computing in `kind`.
    fn codec(&self, kind: Kind) -> ImageCodec {
        let weights = WithTable {
            table: &self.codebook.embedding,
            others: &self.parameters,
        };
        build(&self.shape, &weights, self.device, kind)
    }

    /// The codec with the present weights in f32.
    pub fn snapshot(&self) -> ImageCodec {
        self.codec(Kind::Float)
    }

    /// Whether pictures are quantized already.
    pub(super) fn has_codebook(&self) -> bool {
        self.codebook_since.is_some()
    }

    /// Whether the next step is the one that the codebook starts before.
    pub fn starts_codebook(&self) -> bool {
        !self.has_codebook() && self.step >= self.config.codebook.start
    }

    /// Starts the codebook from the latents of `pictures` (uint8 `[B, 3, H, W]` each),
    /// of which as many are taken as give 32 vectors an entry.
    pub fn start_codebook<E>(
        &mut self,
        pictures: &mut dyn FnMut() -> Result<Tensor, E>,
    ) -> Result<(), E> {
        let _no_grad = tch::no_grad_guard();
        let kind = self.config.precision.kind();
        let codec = self.codec(kind);
        let wanted = VECTORS_PER_ENTRY * self.shape.codebook;
        let mut parts = Vec::new();
        let mut vectors = 0;
        let mut batch = 1;
        while vectors < wanted {
            let latents = codec
                .training_pass(&self.input(&pictures()?).to_kind(kind), None)
                .latents;
            batch = latents.size()[0];
            vectors += batch;
            parts.push(latents);
        }
        let latents = Tensor::cat(&parts, 0);
        let mut generator = sample_generator(self.config.seed, self.step, TrainingDraw::Codebook);
        self.codebook
            .start_from(&latents, batch as f64, &mut || unit(&mut generator));
        self.codebook_since = Some(self.step);
        Ok(())
    }

    /// One step on `pictures`, uint8 `[B, 3, H, W]`.
    pub fn step(&mut self, pictures: &Tensor) -> CodecStep {
        let config = &self.config;
        let x = self.input(pictures);
        let codec = self.codec(config.precision.kind());
        let table = self.codebook_since.map(|_| &self.codebook.embedding);
        let pass = codec.training_pass(&x.to_kind(config.precision.kind()), table);
        let difference = pass.reconstruction - &x;
        let reconstruction = match config.reconstruction {
            Reconstruction::L1 => difference.abs(),
            Reconstruction::L2 => difference.square(),
        }
        .mean(Kind::Float);
        let loss = &reconstruction + &pass.commitment * config.commitment;
        self.trained.clear_gradients();
        loss.backward();
        self.clear_around_prices(Tensor::grad);
        let gradient_norm = gradient_norm(&self.trained);
        clip(&self.trained, gradient_norm, config.clip_norm);
        self.optimizer.step(&self.trained, self.learning_rate.rate);
        self.learning_rate.step(0.0);

        let mut usage = None;
        let mut revived = 0;
        if let Some(codes) = &pass.codes {
            let book = &config.codebook;
            let statistics = CodeStatistics::new(&pass.latents, codes, self.shape.codebook);
            let moves = config.trained == Trained::Whole;
            let price_weight = book.entropy.filter(|_| moves).map(|most| {
                let width = self.shape.embedding_width as f64;
                let error = pass.commitment.double_value(&[]) * width;
                self.codebook.next_price_weight(error, &statistics, most)
            });
            if moves {
                self.codebook.update(&statistics, book.decay, book.epsilon);
            }
            let due = moves
                && self.codebook_since.is_some_and(|since| self.step > since)
                && self.step.is_multiple_of(book.revive_every);
            if due && book.revive_below > 0.0 {
                let mut generator =
                    sample_generator(config.seed, self.step, TrainingDraw::Codebook);
                revived = self
                    .codebook
                    .revive(&pass.latents, book.revive_below, &mut || {
                        unit(&mut generator)
                    });
            }
            if let Some(weight) = price_weight {
                self.codebook.set_prices(weight);
            }
            usage = Some(statistics.counts);
        }
        self.step += 1;
        CodecStep {
            reconstruction: reconstruction.detach(),
            commitment: pass.commitment.detach(),
            usage,
            gradient_norm,
            revived,
        }
    }

    /// uint8 `[B, 3, H, W]` → f32 in −1…1 on the device, in the same order in memory.
    fn input(&self, pictures: &Tensor) -> Tensor {
        pictures
            .to_device(self.device)
            .to_kind(Kind::Float)
            .contiguous()
            / 127.5
            - 1.0
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
