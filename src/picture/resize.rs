//! Resizing and cropping with the arithmetic of Pillow, as the original prepares
//! its pictures.

use tch::{Kind, Tensor};

use super::bicubic::{bicubic, bicubic_f32, Pillow};
use super::Picture;

impl Picture {
    /// Bicubic (a = −0.5) with a support widened when shrinking: Pillow's default
    /// `resize`, bit for bit, as in all releases while the originals were written. Both
    /// sides are at least 1.
    pub fn resize(&self, width: u32, height: u32) -> Picture {
        self.resize_as(width, height, Pillow::UpTo12)
    }

    /// As [`resize`](Self::resize) in other releases of Pillow.
    pub fn resize_as(&self, width: u32, height: u32, pillow: Pillow) -> Picture {
        bicubic(self, width, height, pillow)
    }

    /// As [`resize_as`](Self::resize_as) of every channel as floats, cut to 0…255 but not rounded:
    /// `[3, height, width]` f32 on the CPU (clean-fid's resize).
    pub fn resize_f32(&self, width: u32, height: u32, pillow: Pillow) -> Tensor {
        let sizes = [[self.width, self.height], [width, height]];
        let planes: Vec<Tensor> = (0..3)
            .map(|channel| {
                let values = self.rgb.iter().skip(channel).step_by(3);
                let plane: Vec<f32> = values.map(|&value| f32::from(value)).collect();
                let resized = bicubic_f32(&plane, sizes[0], sizes[1], pillow);
                Tensor::from_slice(&resized).view([i64::from(height), i64::from(width)])
            })
            .collect();
        Tensor::stack(&planes, 0)
            .clamp(0.0, 255.0)
            .to_kind(Kind::Float)
    }

    /// The `width` × `height` pixels from (`left`, `top`) on, which must lie inside.
    pub fn crop(&self, left: u32, top: u32, width: u32, height: u32) -> Picture {
        let row = 3 * self.width as usize;
        let (from, to) = (3 * left as usize, 3 * (left + width) as usize);
        Picture {
            width,
            height,
            rgb: self.rgb[top as usize * row..(top + height) as usize * row]
                .chunks(row)
                .flat_map(|pixels| &pixels[from..to])
                .copied()
                .collect(),
        }
    }

    /// Scaled to cover `width` × `height` just so, and its centre cut out: with a
    /// square target the original's validation preprocessing.
    pub fn cover(&self, width: u32, height: u32) -> Picture {
        let (scaled, [left, top]) = covering([self.width, self.height], [width, height]);
        self.resize(scaled[0], scaled[1])
            .crop(left, top, width, height)
    }
}

/// How a picture of `size` (width, height) covers `target`: the size it is scaled
/// to, the longer side rounded down, and the offset of the part cut out of it.
pub fn covering(size: [u32; 2], target: [u32; 2]) -> ([u32; 2], [u32; 2]) {
    let [w, h] = size.map(u64::from);
    let [to_w, to_h] = target.map(u64::from);
    let scaled = if w * to_h < h * to_w {
        [to_w, h * to_w / w]
    } else {
        [w * to_h / h, to_h]
    };
    let offset = [(scaled[0] - to_w) / 2, (scaled[1] - to_h) / 2];
    (scaled.map(|n| n as u32), offset.map(|n| n as u32))
}
