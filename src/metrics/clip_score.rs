//! CLIP score: how well pictures fit their captions (arXiv 2104.08718).

use tch::{Kind, Tensor};

use super::error::{check_both, MetricError};

/// The mean over pairs in both conventions.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct ClipScore {
    /// Mean of max(100 · cos, 0) (torchmetrics; most papers).
    pub score_100: f64,
    /// Mean of 2.5 · max(cos, 0) (Hessel et al.).
    pub clipscore_2_5: f64,
}

/// Cosines `[N]` f64 of picture and caption embeddings `[N, D]`, of any length.
///
/// # Errors
///
/// Other numbers of pictures than of captions, other widths, or values that are not
/// finite.
pub fn cosines(images: &Tensor, texts: &Tensor) -> Result<Tensor, MetricError> {
    const MEASURE: &str = "CLIP score";
    check_both(MEASURE, [images, texts], 1)?;
    let (left, right) = (images.size()[0], texts.size()[0]);
    if left != right {
        return Err(MetricError::Pairs {
            measure: MEASURE,
            left,
            right,
        });
    }
    let _no_grad = tch::no_grad_guard();
    let unit = |x: &Tensor| {
        let x = x.to_kind(Kind::Double);
        &x / x
            .norm_scalaropt_dim(2.0, [1], true)
            .clamp_min(f64::MIN_POSITIVE)
    };
    Ok((unit(images) * unit(texts)).sum_dim_intlist(Some([1i64].as_slice()), false, Kind::Double))
}

/// The score of `cosines` `[N]`.
pub fn clip_score(cosines: &Tensor) -> ClipScore {
    let mean = cosines.clamp_min(0.0).mean(Kind::Double).double_value(&[]);
    ClipScore {
        score_100: 100.0 * mean,
        clipscore_2_5: 2.5 * mean,
    }
}

/// exp(`logit_scale`) · cosine, the score of PickScore (arXiv 2305.01569); HPSv2
/// (arXiv 2306.09341) is the cosine itself.
pub fn scaled(cosines: &Tensor, logit_scale: f64) -> Tensor {
    cosines * logit_scale.exp()
}
