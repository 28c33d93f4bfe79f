//! Mean and covariance of Inception features as pytorch-fid, clean-fid and ADM's
//! evaluator keep them: `mu` and `sigma` of pool3, `mu_s` and `sigma_s` of the spatial
//! features of sFID.

use std::path::Path;

use tch::Tensor;

use super::moments::Gaussian;
use super::npz::{self, Npz, NpzError};

/// What such a file holds.
#[derive(Debug)]
pub struct Statistics {
    pub pool: Gaussian,
    pub spatial: Option<Gaussian>,
}

const POOL: [&str; 2] = ["mu", "sigma"];
const SPATIAL: [&str; 2] = ["mu_s", "sigma_s"];

/// Whether the archive holds statistics.
pub fn holds_statistics(npz: &Npz) -> bool {
    POOL.iter().all(|name| npz.contains(name))
}

/// # Errors
///
/// A file that is no `.npz`, lacks `mu` or `sigma`, or whose arrays do not fit together
/// or are not finite.
pub fn read(path: &Path) -> Result<Statistics, NpzError> {
    let mut npz = Npz::open(path)?;
    let pool = gaussian(&mut npz, path, POOL)?;
    let spatial = match SPATIAL.iter().all(|name| npz.contains(name)) {
        true => Some(gaussian(&mut npz, path, SPATIAL)?),
        false => None,
    };
    Ok(Statistics { pool, spatial })
}

fn gaussian(npz: &mut Npz, path: &Path, [mu, sigma]: [&str; 2]) -> Result<Gaussian, NpzError> {
    let (mean, covariance) = (npz.floats(mu)?, npz.floats(sigma)?);
    let problem = |problem: String| NpzError::Format {
        path: path.to_path_buf(),
        problem,
    };
    let width = mean.numel() as i64;
    if mean.dim() != 1 || covariance.size() != [width, width] {
        return Err(problem(format!(
            "'{mu}' of shape {:?} and '{sigma}' of shape {:?}, expected [D] and [D, D]",
            mean.size(),
            covariance.size()
        )));
    }
    let finite = |x: &Tensor| x.isfinite().all().int64_value(&[]) != 0;
    if !finite(&mean) || !finite(&covariance) {
        return Err(problem(format!(
            "'{mu}' or '{sigma}' holds NaN or infinite values"
        )));
    }
    Ok(Gaussian::new(mean, covariance))
}

/// Writes a file that appears whole or not at all.
pub fn write(path: &Path, statistics: &Statistics) -> Result<(), NpzError> {
    let of = |[mu, sigma]: [&'static str; 2], gaussian: &Gaussian| {
        [
            (mu, gaussian.mean.shallow_clone()),
            (sigma, gaussian.covariance()),
        ]
    };
    let pool = of(POOL, &statistics.pool);
    let spatial = statistics.spatial.iter().flat_map(|s| of(SPATIAL, s));
    let arrays: Vec<(&str, Tensor)> = pool.into_iter().chain(spatial).collect();
    npz::write(path, &arrays)
}
