//! Inception score: exp of the mean divergence of a picture's classes from all classes
//! (arXiv 1606.03498), over parts of the pictures.

use tch::{Kind, Tensor};

use super::error::{check_features, MetricError};

/// Mean and standard deviation over the parts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InceptionScore {
    pub mean: f64,
    /// Divided by the number of parts.
    pub std: f64,
}

/// Of class logits `[N, C]` in `parts` equal parts, in order; usual are 10.
///
/// # Errors
///
/// Fewer pictures than parts, or values that are not finite.
pub fn inception_score(logits: &Tensor, parts: i64) -> Result<InceptionScore, MetricError> {
    check_features("Inception score", logits, parts)?;
    let _no_grad = tch::no_grad_guard();
    let pictures = logits.size()[0];
    let scores: Vec<f64> = (0..parts)
        .map(|part| {
            let (from, to) = (part * pictures / parts, (part + 1) * pictures / parts);
            let log_p = logits
                .narrow(0, from, to - from)
                .log_softmax(1, Kind::Double); // [n, C]
            let p = log_p.exp();
            let marginal = p.mean_dim(Some([0i64].as_slice()), true, Kind::Double); // [1, C]
                                                                                    // 0 · log 0 = 0 where all probabilities of a class vanish.
            let divergence = (p * (log_p - marginal.clamp_min(f64::MIN_POSITIVE).log()))
                .sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double);
            divergence.mean(Kind::Double).double_value(&[]).exp()
        })
        .collect();
    let mean = scores.iter().sum::<f64>() / parts as f64;
    let variance = scores.iter().map(|s| (s - mean).powi(2)).sum::<f64>() / parts as f64;
    Ok(InceptionScore {
        mean,
        std: variance.sqrt(),
    })
}
