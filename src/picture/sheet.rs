//! Sheets: several pictures as one, for the eye.

use super::{label, Picture};

/// Pixels between the pictures of a row.
const GAP: u32 = 2;
/// Pixels between the rows of a labelled sheet, and around its labels.
const SPACE: u32 = 6;
/// Shorter side of a picture on a labelled sheet, at least.
const SMALLEST: u32 = 128;
/// Lines of a label, at most.
const LINES: usize = 3;

/// Pictures of one size from left to right, and the label below them.
pub struct Row<'a> {
    pub pictures: &'a [Picture],
    pub label: String,
}

/// Pictures of one size side by side, `columns` in a row, on white with `gap`
/// pixels between.
pub fn grid(pictures: &[Picture], columns: usize, gap: u32) -> Option<Picture> {
    let first = pictures.first()?;
    let columns = columns.clamp(1, pictures.len());
    let rows = pictures.len().div_ceil(columns);
    let side = |count: usize, size: u32| count as u32 * (size + gap) - gap;
    let (width, height) = (side(columns, first.width), side(rows, first.height));
    let mut rgb = vec![255; 3 * width as usize * height as usize];
    for (i, picture) in pictures.iter().enumerate() {
        let left = (i % columns) as u32 * (first.width + gap);
        let top = (i / columns) as u32 * (first.height + gap);
        for (y, row) in picture.rgb.chunks(3 * picture.width as usize).enumerate() {
            let at = 3 * ((top as usize + y) * width as usize + left as usize);
            rgb[at..at + row.len()].copy_from_slice(row);
        }
    }
    Some(Picture { width, height, rgb })
}

/// `rows` with their labels, which all are as wide, `columns` of them side by side. Small
/// pictures are enlarged by a whole factor.
pub fn sheet(rows: &[Row], columns: usize) -> Option<Picture> {
    let strips: Vec<Picture> = rows
        .iter()
        .filter_map(|row| {
            let enlarged: Vec<Picture> = row.pictures.iter().map(enlarged).collect();
            grid(&enlarged, enlarged.len(), GAP)
        })
        .collect();
    let width = strips.first()?.width;
    let labels: Vec<Vec<String>> = rows
        .iter()
        .map(|row| label::lines(&row.label, width, LINES))
        .collect();
    let band = match labels.iter().map(Vec::len).max() {
        None | Some(0) => 0,
        Some(lines) => lines as u32 * label::LINE + SPACE,
    };
    let labelled: Vec<Picture> = strips
        .into_iter()
        .zip(&labels)
        .map(|(mut strip, lines)| {
            let top = strip.height;
            strip.height += band;
            strip
                .rgb
                .resize(3 * width as usize * strip.height as usize, 255);
            label::draw(&mut strip, lines, 0, top, width);
            strip
        })
        .collect();
    let gap = if band == 0 { GAP } else { SPACE };
    grid(&labelled, columns, gap)
}

/// A picture of at least [`SMALLEST`] pixels a side, by repeating pixels.
fn enlarged(picture: &Picture) -> Picture {
    let factor = SMALLEST.div_ceil(picture.width.min(picture.height).max(1));
    let mut rgb = Vec::with_capacity(picture.rgb.len() * (factor * factor) as usize);
    for row in picture.rgb.chunks(3 * picture.width.max(1) as usize) {
        let wide: Vec<u8> = row
            .chunks(3)
            .flat_map(|pixel| pixel.repeat(factor as usize))
            .collect();
        rgb.extend(wide.repeat(factor as usize));
    }
    Picture {
        width: picture.width * factor,
        height: picture.height * factor,
        rgb,
    }
}
