//! A trace as pictures.

use super::follow::Trace;
use crate::picture::Picture;

impl Trace {
    /// Step `i`'s tokens, each code in a colour of its own and the mask in grey on a cell of the
    /// picture's size.
    pub fn token_map(&self, i: usize) -> Picture {
        let tokens = &self.steps[i].tokens;
        self.cells(|cell| code_colour(tokens[cell], self.codes))
    }

    /// Step `i`'s entropy, black for 0 to white for ln K.
    pub fn entropy_map(&self, i: usize) -> Picture {
        let (entropy, most) = (&self.steps[i].entropy, (self.codes as f32).ln());
        self.cells(|cell| grey(entropy[cell] / most))
    }

    /// The tokens that step `i` changed, white on black.
    pub fn change_map(&self, i: usize) -> Picture {
        let mut changed = vec![false; self.steps[i].tokens.len()];
        for &position in &self.steps[i].changed {
            changed[position] = true;
        }
        self.cells(|cell| grey(f32::from(u8::from(changed[cell]))))
    }

    /// `picture` lit where the image looked for word `i`: full light at the most.
    pub fn attention_map(&self, i: usize, picture: &Picture) -> Picture {
        let attention = &self.words[i].attention;
        let most = attention.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let light = self.cells(|cell| grey(0.1 + 0.9 * attention[cell] / most));
        let lit = picture.rgb.iter().zip(&light.rgb);
        Picture {
            rgb: lit
                .map(|(&c, &l)| (u16::from(c) * u16::from(l) / 255) as u8)
                .collect(),
            ..light
        }
    }

    /// A picture of the token grid in cells as large as the picture's.
    fn cells(&self, colour: impl Fn(usize) -> [u8; 3]) -> Picture {
        let side = self.cell;
        let [rows, columns] = self.grid.map(|side| side as usize);
        let row = |r: usize| -> Vec<u8> {
            (0..columns)
                .flat_map(|c| std::iter::repeat_n(colour(r * columns + c), side).flatten())
                .collect()
        };
        Picture {
            width: (columns * side) as u32,
            height: (rows * side) as u32,
            rgb: (0..rows)
                .flat_map(|r| std::iter::repeat_n(row(r), side).flatten())
                .collect(),
        }
    }
}

/// A colour for each code, far apart for neighbours; mid grey for the mask.
fn code_colour(token: i64, codes: i64) -> [u8; 3] {
    if token >= codes {
        return [128; 3];
    }
    // Steps of the golden ratio around the circle of hues, in three lightnesses.
    let hue = (token as f64 * 0.618_033_988_749_895).fract() * 6.0;
    let light = [255.0, 190.0, 225.0][token as usize % 3];
    [5.0, 3.0, 1.0].map(|shift: f64| {
        let k = (shift + hue) % 6.0;
        (light * (1.0 - 0.75 * k.min(4.0 - k).clamp(0.0, 1.0))) as u8
    })
}

/// Black for 0 to white for 1.
fn grey(value: f32) -> [u8; 3] {
    [(value.clamp(0.0, 1.0) * 255.0).round() as u8; 3]
}
