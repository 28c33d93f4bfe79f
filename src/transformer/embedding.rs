//! Content embedding (official `DalleMaskImageEmbedding`).

use tch::Tensor;

use super::config::{DenoiserConfig, PositionWeights};
use crate::torch::{Init, Params};

/// e_l = `E_tok[x_l] + E_h[⌊l / W⌋] + E_w[l mod W]`, W the columns of the position table.
pub struct ContentEmbedding {
    token: Tensor,  // [K + 1, D], row K is the mask token
    height: Tensor, // [rows, D]
    across: Tensor, // [columns, D]
    tokens: i64,
    /// The sum of the two position tables, for inference: `[L, D]`.
    position: Option<Tensor>,
}

impl ContentEmbedding {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let width = config.width;
        let [rows, columns] = config.position_table;
        let init = Init::Normal(0.02);
        let table = |name: &str, places: i64| match config.position_weights {
            PositionWeights::Embedding => p.get(&format!("{name}.weight"), &[places, width], init),
            PositionWeights::Parameter => {
                let parameter = p.get(name, &[1, places, width], Init::Zeros);
                parameter.squeeze_dim(0)
            }
        };
        ContentEmbedding {
            height: table("height_emb", rows),
            across: table("width_emb", columns),
            token: p.get("emb.weight", &[config.codes + 1, width], init),
            tokens: config.tokens(),
            position: None,
        }
    }

    /// Adds the position tables up, for inference.
    pub fn tabulate(&mut self) {
        self.position = Some(self.positions());
    }

    fn positions(&self) -> Tensor {
        let table = self.height.unsqueeze(1) + self.across.unsqueeze(0); // [rows, columns, D]
        table.flatten(0, 1).narrow(0, 0, self.tokens) // [L, D]
    }

    /// `tokens` `[B, L]` int64 in 0…K (K is the mask) → `[B, L, D]`.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        let content = Tensor::embedding(&self.token, tokens, -1, false, false); // [B, L, D]
        match &self.position {
            Some(position) => content + position,
            None => content + self.positions(),
        }
    }

    /// The rows of [`forward`](Self::forward) at `positions` int64 `[B, A]` → `[B, A, D]`.
    pub fn forward_at(&self, tokens: &Tensor, positions: &Tensor) -> Tensor {
        let tokens = tokens.gather(1, positions, false); // [B, A]
        let content = Tensor::embedding(&self.token, &tokens, -1, false, false);
        let table = match &self.position {
            Some(position) => position.shallow_clone(),
            None => self.positions(),
        };
        content + Tensor::embedding(&table, positions, -1, false, false)
    }
}

/// Rows `positions` `[B, A]` of `x` `[n B, L, D]` → `[n B, A, D]`; the rows of
/// `positions` repeat for each of the n branches.
pub fn gather_positions(x: &Tensor, positions: &Tensor) -> Tensor {
    x.gather(1, &positions_index(positions, x), false)
}

/// `positions` `[B, A]` as an index `[n B, A, D]` into the second dimension of tensors of the
/// rows and the width of `x` `[n B, ·, D]`.
pub fn positions_index(positions: &Tensor, x: &Tensor) -> Tensor {
    let (rows, width) = (x.size()[0], x.size()[2]);
    let (batch, active) = (positions.size()[0], positions.size()[1]);
    positions
        .repeat([rows / batch, 1])
        .unsqueeze(2)
        .expand([rows, active, width], false)
}
