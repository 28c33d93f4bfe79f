//! A sweep as a table of values separated by commas.

use super::run::SweepReport;

/// Columns before the figures.
const FIRST: [&str; 6] = [
    "steps",
    "guidance",
    "truncation",
    "rule",
    "network_calls",
    "seconds_per_picture",
];

/// A heading, and a row a cell: its values, its cost, its figures.
///
/// # Errors
///
/// Memory that runs out.
pub fn csv(report: &SweepReport) -> std::io::Result<Vec<u8>> {
    let figures: Vec<&str> = match report.cells.first() {
        Some(cell) => cell.figures.keys().copied().collect(),
        None => Vec::new(),
    };
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(FIRST.iter().chain(&figures))?;
    for found in &report.cells {
        let optional = |value: Option<f64>| value.map_or(String::new(), |v| v.to_string());
        let cell = &found.cell;
        let mut row = vec![
            cell.steps.to_string(),
            cell.guidance.to_string(),
            optional(cell.truncation),
            cell.rule_name().to_string(),
            found.network_calls.to_string(),
            optional(found.seconds_per_picture),
        ];
        row.extend(
            figures
                .iter()
                .map(|name| optional(found.figures.get(name).copied())),
        );
        writer.write_record(&row)?;
    }
    writer.into_inner().map_err(|e| e.into_error())
}
