//! Bicubic resizing, bit for bit as Pillow's `Image.resize` does it, of 8-bit values and
//! of floats.
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

/// Releases of Pillow by which of the two passes comes first; since each rounds, some values
/// differ by one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Pillow {
    /// Up to 12: always the horizontal one.
    #[serde(rename = "12")]
    UpTo12,
    /// From 13: the vertical one where the height loses more than twice the pixels that the
    /// width does.
    #[default]
    #[serde(rename = "13")]
    Since13,
}

impl Pillow {
    /// From and to sizes (width, height).
    fn vertical_first(self, from: [u32; 2], to: [u32; 2]) -> bool {
        let lost = |side: usize| i64::from(from[side]) - i64::from(to[side]);
        self == Pillow::Since13 && lost(1) > 0 && lost(1) > 2 * lost(0)
    }
}

/// What one output value is made of: the first input and the weights from there on.
struct Window<W> {
    first: usize,
    weights: Vec<W>,
}

/// The windows that take `inputs` values to `outputs`, their weights adding to 1; when
/// shrinking, the kernel is stretched by the scale, which makes it a low-pass filter.
fn windows(inputs: u32, outputs: u32) -> Vec<Window<f64>> {
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
            Window {
                first,
                weights: weights.iter().map(|weight| weight / sum).collect(),
            }
        })
        .collect()
}

/// The windows in fixed point.
fn fixed_windows(inputs: u32, outputs: u32) -> Vec<Window<i32>> {
    let fixed = |weight: &f64| {
        let scaled = weight * f64::from(1 << PRECISION);
        (scaled + 0.5f64.copysign(scaled)) as i32
    };
    windows(inputs, outputs)
        .into_iter()
        .map(|window| Window {
            first: window.first,
            weights: window.weights.iter().map(fixed).collect(),
        })
        .collect()
}

/// A fixed-point sum, which started from one half, as a byte.
fn byte(sum: i32) -> u8 {
    (sum >> PRECISION).clamp(0, 255) as u8
}

const HALF: i32 = 1 << (PRECISION - 1);

/// `picture` at `width` by `height` pixels, both at least 1: a horizontal and a vertical
/// pass, each rounded to 8 bits. A side that does not change is not filtered.
pub fn bicubic(picture: &Picture, width: u32, height: u32, pillow: Pillow) -> Picture {
    if pillow.vertical_first([picture.width, picture.height], [width, height]) {
        let vertical = bicubic(picture, picture.width, height, Pillow::UpTo12);
        return bicubic(&vertical, width, height, Pillow::UpTo12);
    }
    let mut rgb = picture.rgb.clone();
    if width != picture.width {
        let windows = fixed_windows(picture.width, width);
        rgb = rgb
            .chunks_exact(3 * picture.width as usize)
            .flat_map(|row| windows.iter().flat_map(|window| horizontal(row, window)))
            .collect();
    }
    if height != picture.height {
        let row = 3 * width as usize;
        rgb = fixed_windows(picture.height, height)
            .iter()
            .flat_map(|window| vertical(&rgb, row, window))
            .collect();
    }
    Picture { width, height, rgb }
}

/// One pixel from its window in a row.
fn horizontal(row: &[u8], window: &Window<i32>) -> [u8; 3] {
    let mut sums = [HALF; 3];
    for (pixel, &weight) in row[3 * window.first..].chunks_exact(3).zip(&window.weights) {
        for (sum, &value) in sums.iter_mut().zip(pixel) {
            *sum += weight * i32::from(value);
        }
    }
    sums.map(byte)
}

/// One row of `length` bytes from its window of rows.
fn vertical(rgb: &[u8], length: usize, window: &Window<i32>) -> Vec<u8> {
    let mut sums = vec![HALF; length];
    let rows = rgb[window.first * length..].chunks_exact(length);
    for (row, &weight) in rows.zip(&window.weights) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += weight * i32::from(value);
        }
    }
    sums.into_iter().map(byte).collect()
}

/// The channel values `[rows, columns]` of one plane at `width` by `height`, as Pillow
/// resizes a picture of mode `F`: sums in f64, each pass rounded to f32.
pub fn bicubic_f32(
    plane: &[f32],
    size: [u32; 2],
    [width, height]: [u32; 2],
    pillow: Pillow,
) -> Vec<f32> {
    if pillow.vertical_first(size, [width, height]) {
        let vertical = bicubic_f32(plane, size, [size[0], height], Pillow::UpTo12);
        return bicubic_f32(
            &vertical,
            [size[0], height],
            [width, height],
            Pillow::UpTo12,
        );
    }
    let mut values = plane.to_vec();
    let sum = |window: &Window<f64>, value: &dyn Fn(usize) -> f32| {
        let weights = window.weights.iter().enumerate();
        let terms = weights.map(|(i, weight)| f64::from(value(window.first + i)) * weight);
        terms.sum::<f64>() as f32
    };
    if width != size[0] {
        let windows = windows(size[0], width);
        values = values
            .chunks_exact(size[0] as usize)
            .flat_map(|row| windows.iter().map(move |window| sum(window, &|i| row[i])))
            .collect();
    }
    if height != size[1] {
        let columns = width as usize;
        values = windows(size[1], height)
            .iter()
            .flat_map(|window| {
                let values = &values;
                (0..columns).map(move |x| sum(window, &|i| values[i * columns + x]))
            })
            .collect();
    }
    values
}
