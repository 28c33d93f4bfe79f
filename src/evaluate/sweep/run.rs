//! All cells of a sweep, made and measured.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::Serialize;

use super::cells::Cell;
use crate::evaluate::model::protocol::ModelProtocol;
use crate::evaluate::model::report::{RealsReport, RunReport};
use crate::evaluate::model::run::{ModelRun, RunEvent};
use crate::evaluate::model::ModelError;
use crate::evaluate::pictures::networks::{Described, Network};
use crate::evaluate::pictures::report::Controls;
use crate::pipeline::{PictureSettings, Subject};

/// What is found of one cell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct CellReport {
    #[serde(flatten)]
    pub cell: Cell,
    pub settings: PictureSettings,
    /// Evaluations of the network for a picture.
    pub network_calls: usize,
    /// Seconds for a picture.
    pub seconds_per_picture: Option<f64>,
    /// Each figure by name.
    pub figures: BTreeMap<&'static str, f64>,
    pub run: RunReport,
    /// The folder of its pictures, in that of the sweep.
    pub folder: PathBuf,
}

/// Everything about a sweep.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SweepReport {
    pub measure: &'static str,
    pub version: &'static str,
    pub protocol: ModelProtocol,
    pub checkpoint: PathBuf,
    /// SHA-256 of the model's weights.
    pub model_sha256: String,
    pub reals: RealsReport,
    pub networks: Vec<Described>,
    pub controls: Controls,
    pub cells: Vec<CellReport>,
    /// Cells that were to be measured.
    pub asked: usize,
    /// What the pictures should show, the first of them.
    #[serde(skip)]
    pub subjects: Vec<Subject>,
}

/// Pictures of a cell that are shown.
pub const SHOWN: usize = 8;

/// Measures every one of `cells` of the model and protocol of `base`, in folders of
/// `base.out`. Where `stop` ends the work, the report has the cells that were complete.
///
/// # Errors
///
/// See [`ModelError`]; [`ModelError::is_stop`] if `stop` was set before the first cell was
/// complete.
pub fn sweep(
    base: &ModelRun,
    cells: &[Cell],
    networks: Vec<Network>,
    stop: &AtomicBool,
    on_event: &mut dyn FnMut(usize, RunEvent),
) -> Result<SweepReport, ModelError> {
    let described = networks.iter().map(Network::described).collect();
    let mut extractors = base.extractors(networks)?;
    let mut known = None;
    let mut reports: Vec<CellReport> = Vec::new();
    for (n, cell) in cells.iter().enumerate() {
        let folder = Path::new("cells").join(cell.name());
        let mut run = base.with(cell.apply(&base.options), base.out.join(&folder));
        let mut maker = run.pipeline.maker(&run.options)?;
        let asked = run.settle(&maker)?;
        let mut hear = |event: RunEvent| on_event(n, event);
        if known.is_none() {
            // The cache keeps them apart from the cells' folders.
            let measured = run.reals(&asked, &mut extractors, stop, &mut hear)?;
            known = Some((measured, run.protocol.clone(), asked.subjects.clone()));
        }
        let Some((measured, ..)) = &known else { break };
        let place = base.out.join(&folder);
        let made = run.make(
            &place,
            0,
            &asked,
            &mut maker,
            &mut extractors,
            stop,
            &mut hear,
        );
        let made = match made {
            Err(error) if error.is_stop() && !reports.is_empty() => break,
            made => made?,
        };
        // The first process measures.
        let Some(made) = made else { continue };
        let found = run.measure(&made, measured, &asked, &extractors)?;
        reports.push(CellReport {
            cell: *cell,
            settings: maker.settings().clone(),
            network_calls: maker.calls().full * run.selection.map_or(1, |s| s.candidates),
            seconds_per_picture: made.seconds_per_picture,
            figures: found.compared.figures.named().into_iter().collect(),
            run: found,
            folder,
        });
    }
    let Some((measured, protocol, mut subjects)) = known else {
        unreachable!("a sweep has cells");
    };
    subjects.truncate(SHOWN);
    Ok(SweepReport {
        measure: "sweep",
        version: env!("CARGO_PKG_VERSION"),
        protocol,
        checkpoint: base.checkpoint.clone(),
        model_sha256: base.pipeline.fingerprint().to_string(),
        reals: measured.report,
        networks: described,
        controls: measured.controls,
        cells: reports,
        asked: cells.len(),
        subjects,
    })
}
