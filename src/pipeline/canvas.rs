//! Pictures to start from, laid on the model's canvas, with the tokens to redraw.
//!
//! Everything here is exact to the token: a token of the picture is redrawn or kept
//! whole, and so are the pixels of its cell.

use crate::model::ModelConfig;
use crate::picture::{covering, Mask, Picture};

/// Why a picture cannot be edited so.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum EditError {
    #[error("{path} selects nothing inside the {width}×{height} picture, expected white where tokens are to be redrawn")]
    EmptyMask {
        path: String,
        width: i64,
        height: i64,
    },
    #[error("outpaint {side} is {found}, expected a multiple of {factor}, the pixels of a token")]
    Margin {
        side: &'static str,
        found: u32,
        factor: i64,
    },
    #[error(
        "outpaint {axis} is {found} together, which leaves nothing of the {size} pixels \
         for the picture (the model's token grid does not grow)"
    )]
    NoRoom {
        axis: &'static str,
        found: u64,
        size: i64,
    },
}

/// Pixels to make on each side of a picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Margins {
    pub left: u32,
    pub right: u32,
    pub top: u32,
    pub bottom: u32,
}

/// A picture of the model's size, and which of its tokens are to be redrawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Canvas {
    pub picture: Picture,
    /// Row-major over the token grid; all tokens when `None`.
    pub redrawn: Option<Vec<bool>>,
    /// Token grid as rows, columns.
    grid: [usize; 2],
    /// Pixels of a token's side.
    factor: usize,
}

impl Canvas {
    /// `picture` scaled to cover the model's size, its middle cut out; every token
    /// is redrawn.
    pub fn new(picture: &Picture, model: &ModelConfig) -> Self {
        let [height, width] = model.picture_size().map(|side| side as u32);
        Canvas {
            picture: picture.cover(width, height),
            redrawn: None,
            grid: model.denoiser.grid.map(|side| side as usize),
            factor: model.codec.factor() as usize,
        }
    }

    /// As [`new`](Self::new), redrawing the tokens whose cell `mask` selects any part
    /// of. The mask may have another size than the picture: it covers the same frame.
    ///
    /// # Errors
    ///
    /// A mask that selects no token. `name` is the mask's in messages.
    pub fn masked(
        picture: &Picture,
        mask: &Mask,
        name: &str,
        model: &ModelConfig,
    ) -> Result<Self, EditError> {
        let mut canvas = Canvas::new(picture, model);
        let cells = canvas.cells(mask, [picture.width, picture.height]);
        if !cells.contains(&true) {
            let [height, width] = model.picture_size();
            return Err(EditError::EmptyMask {
                path: name.to_string(),
                width,
                height,
            });
        }
        canvas.redrawn = Some(cells);
        Ok(canvas)
    }

    /// `picture` scaled to cover what `margins` leave of the model's size; the tokens
    /// of the margins are redrawn. For the codec's sake they hold the picture's edge.
    ///
    /// # Errors
    ///
    /// Margins that are no multiples of a token's pixels or leave no room.
    pub fn outpainted(
        picture: &Picture,
        margins: Margins,
        model: &ModelConfig,
    ) -> Result<Self, EditError> {
        let factor = model.codec.factor();
        let Margins {
            left,
            right,
            top,
            bottom,
        } = margins;
        for (side, pixels) in [
            ("left", left),
            ("right", right),
            ("top", top),
            ("bottom", bottom),
        ] {
            if i64::from(pixels) % factor != 0 {
                return Err(EditError::Margin {
                    side,
                    found: pixels,
                    factor,
                });
            }
        }
        let [height, width] = model.picture_size();
        let inner = |axis, size: i64, before: u32, after: u32| {
            let taken = u64::from(before) + u64::from(after);
            match (size as u64).checked_sub(taken) {
                None | Some(0) => Err(EditError::NoRoom {
                    axis,
                    found: taken,
                    size,
                }),
                Some(rest) => Ok(rest as u32),
            }
        };
        let inner_width = inner("left and right", width, left, right)?;
        let inner_height = inner("top and bottom", height, top, bottom)?;
        let inner = picture.cover(inner_width, inner_height);

        let mut canvas = Canvas {
            picture: inner.with_margins(margins),
            redrawn: None,
            grid: model.denoiser.grid.map(|side| side as usize),
            factor: factor as usize,
        };
        let within = |at: usize, before: u32, size: u32| {
            let pixel = (at * canvas.factor) as u32;
            (before..before + size).contains(&pixel)
        };
        let redrawn = (0..canvas.grid[0] * canvas.grid[1])
            .map(|cell| {
                let (row, column) = (cell / canvas.grid[1], cell % canvas.grid[1]);
                !(within(row, top, inner_height) && within(column, left, inner_width))
            })
            .collect();
        canvas.redrawn = Some(redrawn);
        Ok(canvas)
    }

    /// `made` with the pixels of the kept tokens' cells replaced by the picture's.
    pub fn composite(&self, mut made: Picture) -> Picture {
        let Some(redrawn) = &self.redrawn else {
            return made;
        };
        let width = made.width as usize;
        for (i, pixel) in made.rgb.chunks_mut(3).enumerate() {
            let (y, x) = (i / width, i % width);
            if !redrawn[y / self.factor * self.grid[1] + x / self.factor] {
                pixel.copy_from_slice(&self.picture.rgb[3 * i..3 * i + 3]);
            }
        }
        made
    }

    /// The cells that `mask` selects a part of, when it covers the frame of a picture
    /// of `size` (width, height) that is scaled and cut to the canvas.
    fn cells(&self, mask: &Mask, size: [u32; 2]) -> Vec<bool> {
        let target = [self.picture.width, self.picture.height];
        let (scaled, offset) = covering(size, target);
        // Cells from `from` to `to` (exclusive) that pixel `at` of `count` lies over.
        // Its span in canvas pixels is [at, at + 1) · scaled / count − offset.
        let span = |at: u32, count: u32, axis: usize| {
            let (scaled, count) = (u64::from(scaled[axis]), u64::from(count));
            let start = u64::from(at) * scaled; // in canvas pixels times `count`
            let end = start + scaled;
            let shift = u64::from(offset[axis]) * count;
            let cell = count * self.factor as u64;
            let from = start.saturating_sub(shift) / cell;
            let to = end.saturating_sub(shift).div_ceil(cell);
            let cells = self.grid[1 - axis] as u64;
            from.min(cells) as usize..to.min(cells) as usize
        };
        let columns: Vec<_> = (0..mask.width).map(|x| span(x, mask.width, 0)).collect();
        let mut cells = vec![false; self.grid[0] * self.grid[1]];
        for (y, row) in mask.selected.chunks(mask.width as usize).enumerate() {
            let rows = span(y as u32, mask.height, 1);
            for (x, _) in row.iter().enumerate().filter(|(_, &selected)| selected) {
                for r in rows.clone() {
                    cells[r * self.grid[1]..][columns[x].clone()].fill(true);
                }
            }
        }
        cells
    }
}

impl Picture {
    /// The picture with its edge pixels continued into `margins`.
    fn with_margins(&self, margins: Margins) -> Picture {
        let width = self.width + margins.left + margins.right;
        let height = self.height + margins.top + margins.bottom;
        let inside = |at: u32, before: u32, size: u32| at.saturating_sub(before).min(size - 1);
        let mut rgb = Vec::with_capacity(3 * (width * height) as usize);
        for y in 0..height {
            let row = inside(y, margins.top, self.height);
            for x in 0..width {
                let column = inside(x, margins.left, self.width);
                let at = 3 * (row * self.width + column) as usize;
                rgb.extend_from_slice(&self.rgb[at..at + 3]);
            }
        }
        Picture { width, height, rgb }
    }
}
