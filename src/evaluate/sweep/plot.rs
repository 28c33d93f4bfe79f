//! Charts of quality against cost, as SVG and as a picture.

use std::convert::Infallible;
use std::error::Error;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, VPos};
use plotters::style::FontTransform;
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

use crate::picture::{text_line, Picture};

/// Pixels of a chart.
const SIZE: (u32, u32) = (760, 480);
const FONT: (&str, u32) = ("sans-serif", 16);
/// Lines are told apart by these, in turn (Okabe and Ito's, for every eye).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
];

/// Lines of points over one another.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    pub x: String,
    pub y: String,
    /// Each with its name.
    pub lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Chart {
    /// The chart as a document of SVG.
    ///
    /// # Errors
    ///
    /// Points that are not finite.
    pub fn svg(&self) -> Result<String, Box<dyn Error + Send + Sync>> {
        let mut text = String::new();
        self.draw(SVGBackend::with_string(&mut text, SIZE).into_drawing_area())
            .map_err(|e| e.to_string())?;
        Ok(text)
    }

    /// The chart as a picture.
    ///
    /// # Errors
    ///
    /// Points that are not finite.
    pub fn picture(&self) -> Result<Picture, Box<dyn Error + Send + Sync>> {
        let mut picture = Picture {
            width: SIZE.0,
            height: SIZE.1,
            rgb: vec![255; 3 * (SIZE.0 * SIZE.1) as usize],
        };
        self.draw(Canvas(&mut picture).into_drawing_area())
            .map_err(|e| e.to_string())?;
        Ok(picture)
    }

    fn draw<B: DrawingBackend>(
        &self,
        area: DrawingArea<B, Shift>,
    ) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
        let points = || self.lines.iter().flat_map(|(_, points)| points.iter());
        let x = span(points().map(|p| p.0));
        let y = span(points().map(|p| p.1));
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(76)
            .build_cartesian_2d(x[0]..x[1], y[0]..y[1])?;
        chart
            .configure_mesh()
            .x_desc(self.x.as_str())
            .y_desc(self.y.as_str())
            .label_style(FONT)
            .axis_desc_style(FONT)
            .light_line_style(WHITE)
            .draw()?;
        for (n, (name, points)) in self.lines.iter().enumerate() {
            let colour = COLOURS[n % COLOURS.len()];
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
            chart
                .draw_series(line)?
                .label(name.as_str())
                .legend(move |(x, y)| {
                    PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
                });
            let dots = points
                .iter()
                .map(|&point| Circle::new(point, 4, colour.filled()));
            chart.draw_series(dots)?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.85))
            .border_style(BLACK.mix(0.4))
            .label_font(FONT)
            .draw()?;
        area.present()
    }
}

/// What an axis shows of `values`: all of them with a margin.
fn span(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let finite = values.filter(|value| value.is_finite());
    let [low, high] = finite.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
        [low.min(value), high.max(value)]
    });
    match low <= high {
        true => {
            let margin = match high > low {
                true => 0.08 * (high - low),
                false => 0.1 * high.abs().max(1e-3),
            };
            [low - margin, high + margin]
        }
        false => [0.0, 1.0],
    }
}

/// A picture to draw on, with the font of sheets.
struct Canvas<'a>(&'a mut Picture);

impl Canvas<'_> {
    /// Lays `share` of a colour over a pixel, if it is one of the picture.
    fn blend(&mut self, (x, y): BackendCoord, (r, g, b): (u8, u8, u8), share: f64) {
        let picture = &mut *self.0;
        let (width, height) = (picture.width as i32, picture.height as i32);
        if !(0..width).contains(&x) || !(0..height).contains(&y) {
            return;
        }
        let at = 3 * (y * width + x) as usize;
        for (pixel, colour) in picture.rgb[at..at + 3].iter_mut().zip([r, g, b]) {
            let mixed = f64::from(*pixel) * (1.0 - share) + f64::from(colour) * share;
            *pixel = mixed.round() as u8;
        }
    }
}

impl DrawingBackend for Canvas<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.0.width, self.0.height)
    }

    fn ensure_prepared(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn present(&mut self) -> Result<(), DrawingErrorKind<Infallible>> {
        Ok(())
    }

    fn draw_pixel(
        &mut self,
        point: BackendCoord,
        color: BackendColor,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        self.blend(point, color.rgb, color.alpha);
        Ok(())
    }

    fn draw_text<S: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &S,
        (x, y): BackendCoord,
    ) -> Result<(), DrawingErrorKind<Infallible>> {
        let line = text_line(text);
        let (width, height) = (line.width as i32, line.height as i32);
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let top = match style.anchor().v_pos {
            VPos::Top => 0,
            VPos::Center => -height / 2,
            VPos::Bottom => -height,
        };
        let color = style.color();
        for (row, pixels) in line.rgb.chunks(3 * line.width.max(1) as usize).enumerate() {
            for (column, pixel) in pixels.chunks(3).enumerate() {
                let (dx, dy) = (left + column as i32, top + row as i32);
                let (dx, dy) = match style.transform() {
                    FontTransform::None => (dx, dy),
                    FontTransform::Rotate90 => (-dy, dx),
                    FontTransform::Rotate180 => (-dx, -dy),
                    FontTransform::Rotate270 => (dy, -dx),
                };
                let ink = 1.0 - f64::from(pixel[0]) / 255.0;
                self.blend((x + dx, y + dy), color.rgb, ink * color.alpha);
            }
        }
        Ok(())
    }

    fn estimate_text_size<S: BackendTextStyle>(
        &self,
        text: &str,
        _style: &S,
    ) -> Result<(u32, u32), DrawingErrorKind<Infallible>> {
        let line = text_line(text);
        Ok((line.width, line.height))
    }
}
