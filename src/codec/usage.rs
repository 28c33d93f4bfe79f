//! How often the codes of a codebook are used, and the mapping that keeps the used ones.

/// exp of the entropy of the counts: the number of codes if all are used equally.
pub fn perplexity(usage: &[u64]) -> f64 {
    let total: f64 = usage.iter().map(|&count| count as f64).sum();
    let entropy: f64 = usage
        .iter()
        .filter(|&&count| count > 0)
        .map(|&count| {
            let share = count as f64 / total;
            -share * share.ln()
        })
        .sum();
    entropy.exp()
}

/// The mapping `[N]` from codes to reduced codes, as the original's `taming_vqvae_2887.pt`
/// has it: codes that occur at least `least` times become 1, 2 … in increasing order;
/// all others become 0, the class that is decoded as code 0. The number K of reduced codes
/// comes second.
pub fn reduction(usage: &[u64], least: u64) -> (Vec<i64>, i64) {
    let mut codes = 1;
    let mapping = usage
        .iter()
        .enumerate()
        .map(|(code, &count)| {
            if code == 0 || count < least.max(1) {
                return 0;
            }
            codes += 1;
            codes - 1
        })
        .collect();
    (mapping, codes)
}
