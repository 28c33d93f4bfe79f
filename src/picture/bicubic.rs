//! Bicubic resizing, bit for bit as Pillow's `Image.resize` does it.
//!
//! The original prepares its pictures with Pillow. Resizing crates compute with shorter
//! coefficients and differ by one step in some per cent of the values.

use super::Picture;

/// Fixed-point bits of a coefficient: 32 less 8 for the value and 2 for overshoot.
const PRECISION: u32 = 22;

/// Keys' cubic kernel with a = −0.5, zero from distance 2 on.
fn cubic(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// What one output value is made of: the first input and the weights from there on.
struct Window {
    first: usize,
    weights: Vec<i32>,
}

/// The windows that take `inputs` values to `outputs`; when shrinking, the kernel is
/// stretched by the scale, which makes it a low-pass filter.
fn windows(inputs: u32, outputs: u32) -> Vec<Window> {
    let scale = f64::from(inputs) / f64::from(outputs);
    let stretch = scale.max(1.0);
    let support = 2.0 * stretch;
    (0..outputs)
        .map(|output| {
            let center = (f64::from(output) + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(inputs as usize);
            let weights: Vec<f64> = (first..end)
                .map(|input| cubic((input as f64 - center + 0.5) * (1.0 / stretch)))
                .collect();
            let sum: f64 = weights.iter().sum();
            let fixed = |weight: &f64| {
                let scaled = weight / sum * f64::from(1 << PRECISION);
                (scaled + 0.5f64.copysign(scaled)) as i32
            };
            Window {
                first,
                weights: weights.iter().map(fixed).collect(),
            }
        })
        .collect()
}

/// A fixed-point sum, which started from one half, as a byte.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// `picture` at `width` by `height` pixels, both at least 1: a horizontal pass, rounded
/// to 8 bits, then a vertical one. A side that does not change is not filtered.
pub fn bicubic(picture: &Picture, width: u32, height: u32) -> Picture {
    let mut rgb = picture.rgb.clone();
    if width != picture.width {
        let windows = windows(picture.width, width);
        rgb = rgb
            .chunks_exact(3 * picture.width as usize)
            .flat_map(|row| windows.iter().flat_map(|window| horizontal(row, window)))
            .collect();
    }
    if height != picture.height {
        let row = 3 * width as usize;
        rgb = windows(picture.height, height)
            .iter()
            .flat_map(|window| vertical(&rgb, row, window))
            .collect();
    }
    Picture { width, height, rgb }
}

/// One pixel from its window in a row.
fn horizontal(row: &[u8], window: &Window) -> [u8; 3] {
    let mut sums = [HALF; 3];
    for (pixel, &weight) in row[3 * window.first..].chunks_exact(3).zip(&window.weights) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += weight * i32::from(value);
        }
    }
    sums.map(byte)
}

/// One row of `length` bytes from its window of rows.
fn vertical(rgb: &[u8], length: usize, window: &Window) -> Vec<u8> {
    let mut sums = vec![HALF; length];
    let rows = rgb[window.first * length..].chunks_exact(length);
    for (row, &weight) in rows.zip(&window.weights) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += weight * i32::from(value);
        }
    }
    sums.into_iter().map(byte).collect()
}
