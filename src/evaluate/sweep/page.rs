//! The files of a sweep: the table, the charts, and one page that holds everything.

use std::path::{Path, PathBuf};

use base64::prelude::{Engine, BASE64_STANDARD};

use super::plot::Chart;
use super::run::{CellReport, SweepReport, SHOWN};
use super::table;
use crate::evaluate::model::ModelError;
use crate::files::{self, FileError};
use crate::picture::{read_picture, sheet, write_png, Picture, Row};
use crate::pipeline::Subject;

/// Figures that are plotted where they are known, and what their axis says.
const PLOTTED: [(&str, &str); 5] = [
    ("fid", "FID (less is better)"),
    ("fd_dinov2", "FD-DINOv2 (less is better)"),
    ("cmmd", "CMMD (less is better)"),
    ("clip_score", "CLIP score (more is better)"),
    ("inception_score", "Inception score (more is better)"),
];
/// Bytes of the largest picture of a cell's sheet.
const LARGEST: u64 = 1 << 28;

/// Writes `report.json`, `sweep.csv`, a chart a figure and cost as `.svg` and `.png`, a
/// sheet of pictures a cell, and `sweep.html` with all of it into `folder`.
///
/// # Errors
///
/// A file that cannot be written, a picture that cannot be read.
pub fn write(report: &SweepReport, folder: &Path) -> Result<PathBuf, ModelError> {
    let failed = |path: &Path, e: std::io::Error| ModelError::File(FileError::writing(path)(e));
    let path = folder.join("report.json");
    let mut text = serde_json::to_vec_pretty(report).map_err(|e| failed(&path, e.into()))?;
    text.push(b'\n');
    files::write(&path, text)?;
    let path = folder.join("sweep.csv");
    files::write(&path, table::csv(report).map_err(|e| failed(&path, e))?)?;
    let mut charts = Vec::new();
    for (name, chart) in charts_of(report) {
        let path = folder.join(format!("{name}.svg"));
        let svg = chart
            .svg()
            .map_err(|e| failed(&path, std::io::Error::other(e)))?;
        files::write(&path, &svg)?;
        let path = folder.join(format!("{name}.png"));
        let picture = chart.picture();
        let picture = picture.map_err(|e| failed(&path, std::io::Error::other(e)))?;
        write_png(&path, &picture, &[])?;
        charts.push(svg);
    }
    let mut grids = Vec::new();
    for cell in &report.cells {
        grids.push(grid(report, cell, folder)?);
    }
    let path = folder.join("sweep.html");
    files::write(&path, html(report, &charts, &grids))?;
    Ok(path)
}

/// A chart of each figure against each cost, with the name of its file.
fn charts_of(report: &SweepReport) -> Vec<(String, Chart)> {
    let calls = |cell: &CellReport| Some(cell.network_calls as f64);
    let seconds = |cell: &CellReport| cell.seconds_per_picture;
    type Cost<'a> = (&'a str, &'a str, &'a dyn Fn(&CellReport) -> Option<f64>);
    let costs: [Cost; 2] = [
        ("calls", "network calls a picture", &calls),
        ("seconds", "seconds a picture", &seconds),
    ];
    let mut charts = Vec::new();
    for (figure, y) in PLOTTED {
        for (cost, x, of) in costs {
            let mut lines: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
            for cell in &report.cells {
                let Some((x, y)) = of(cell).zip(cell.figures.get(figure).copied()) else {
                    continue;
                };
                let name = cell.cell.line();
                match lines.iter_mut().find(|(line, _)| *line == name) {
                    Some((_, points)) => points.push((x, y)),
                    None => lines.push((name, vec![(x, y)])),
                }
            }
            for (_, points) in &mut lines {
                points.sort_by(|a, b| a.0.total_cmp(&b.0));
            }
            if !lines.is_empty() {
                let (x, y) = (x.to_string(), y.to_string());
                charts.push((format!("{figure}-{cost}"), Chart { x, y, lines }));
            }
        }
    }
    charts
}

/// The sheet of a cell's first pictures as a PNG file's bytes; nothing where they were not
/// kept.
fn grid(
    report: &SweepReport,
    cell: &CellReport,
    folder: &Path,
) -> Result<Option<Vec<u8>>, ModelError> {
    let samples = folder.join(&cell.folder).join("samples");
    let mut pictures: Vec<Picture> = Vec::new();
    for n in 0..SHOWN.min(report.subjects.len()) {
        let path = samples.join(format!("{n:06}.png"));
        if path.exists() {
            pictures.push(read_picture(&path)?);
        }
    }
    let rows: Vec<Row> = pictures
        .iter()
        .zip(&report.subjects)
        .map(|(picture, subject)| Row {
            pictures: std::slice::from_ref(picture),
            label: match subject {
                Subject::Text(prompt) => prompt.clone(),
                Subject::Class(class) => format!("class {class}"),
                Subject::Anything => String::new(),
            },
        })
        .collect();
    let Some(sheet) = sheet(&rows, SHOWN) else {
        return Ok(None);
    };
    let path = folder.join(&cell.folder).join("sheet.png");
    write_png(&path, &sheet, &[])?;
    Ok(Some(files::read(&path, LARGEST)?))
}

fn html(report: &SweepReport, charts: &[String], grids: &[Option<Vec<u8>>]) -> String {
    const STYLE: &str = "body{font:15px system-ui,sans-serif;margin:2em auto;max-width:1100px;\
         padding:0 1em}table{border-collapse:collapse}td,th{padding:.25em .7em;text-align:right;\
         border-bottom:1px solid #ddd}.charts{display:flex;flex-wrap:wrap;gap:1em}\
         .charts svg{max-width:100%;height:auto}img{max-width:100%}.hash{color:#777}";
    let name = escaped(&report.protocol.name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{name}</title>\
         <style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n"
    );
    page += &format!(
        "<p>{} of {} cells of {} pictures each, the same prompts and seeds in every one. \
         <span class=\"hash\">model {}</span></p>\n",
        report.cells.len(),
        report.asked,
        report.protocol.samples.pictures,
        report.model_sha256
    );
    if report.cells.len() > 1 {
        page += "<p>The best cell is chosen on the figure that it is best in.</p>\n";
    }
    page += "<div class=\"charts\">\n";
    for svg in charts {
        // A document of its own begins with what has no place in a page.
        let start = svg.find("<svg").unwrap_or(0);
        page += &format!("<div>{}</div>\n", &svg[start..]);
    }
    page += "</div>\n<table>\n";
    let figures: Vec<&str> = match report.cells.first() {
        Some(cell) => cell.figures.keys().copied().collect(),
        None => Vec::new(),
    };
    page += "<tr><th>cell</th><th>steps</th><th>calls</th><th>s a picture</th>";
    for figure in &figures {
        page += &format!("<th>{}</th>", escaped(figure));
    }
    page += "</tr>\n";
    for cell in &report.cells {
        let seconds = cell.seconds_per_picture;
        page += &format!(
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td>",
            escaped(&cell.cell.line()),
            cell.cell.steps,
            cell.network_calls,
            seconds.map_or("–".into(), |s| format!("{s:.2}")),
        );
        for figure in &figures {
            let value = cell.figures.get(figure);
            page += &format!(
                "<td>{}</td>",
                value.map_or("–".into(), |v| format!("{v:.3}"))
            );
        }
        page += "</tr>\n";
    }
    page += "</table>\n";
    for (cell, grid) in report.cells.iter().zip(grids) {
        let Some(png) = grid else { continue };
        let (line, steps) = (escaped(&cell.cell.line()), cell.cell.steps);
        page += &format!(
            "<h2>{line}, {steps} steps</h2>\n<img alt=\"{line}, {steps} steps\" \
             src=\"data:image/png;base64,{}\">\n",
            BASE64_STANDARD.encode(png)
        );
    }
    page += "</body></html>\n";
    page
}

/// Text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
