//! Content embedding (official `DalleMaskImageEmbedding`).

use tch::Tensor;

use super::config::DenoiserConfig;
use crate::torch::{Init, Params};

/// e_l = E_tok[x_l] + E_h[⌊l / W⌋] + E_w[l mod W], W the columns of the position table.
pub struct ContentEmbedding {
    token: Tensor,    // [K + 1, D], row K is the mask token
    position: Tensor, // [L, D]
}

impl ContentEmbedding {
    pub fn new(p: &Params, config: &DenoiserConfig) -> Self {
        let width = config.width;
        let [rows, columns] = config.position_table;
        let init = Init::Normal(0.02);
        let height = p.get("height_emb.weight", &[rows, width], init);
        let across = p.get("width_emb.weight", &[columns, width], init);
        let table = (height.unsqueeze(1) + across.unsqueeze(0)).view([rows * columns, width]);
        ContentEmbedding {
            token: p.get("emb.weight", &[config.codes + 1, width], init),
            position: table.narrow(0, 0, config.tokens()),
        }
    }

    /// `tokens` `[B, L]` int64 in 0…K (K is the mask) → `[B, L, D]`.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        Tensor::embedding(&self.token, tokens, -1, false, false) + &self.position
        // [B, L, D]
    }
}

/// Rows `positions` `[B, A]` of `x` `[n B, L, D]` → `[n B, A, D]`; the rows of
/// `positions` repeat for each of the n branches.
pub fn gather_positions(x: &Tensor, positions: &Tensor) -> Tensor {
    let (rows, width) = (x.size()[0], x.size()[2]);
    let (batch, active) = (positions.size()[0], positions.size()[1]);
    let index = positions
        .repeat([rows / batch, 1])
        .unsqueeze(2)
        .expand([rows, active, width], false);
    x.gather(1, &index, false)
}
