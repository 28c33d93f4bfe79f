//! Progress of passes over pictures.

use crate::cli::progress::{say, ProgressDisplay};
use crate::evaluate::pictures::run::ExtractionEvent;

/// Shows passes of networks over pictures, one after the other.
#[derive(Default)]
pub struct ExtractionProgress(Option<ProgressDisplay>);

impl ExtractionProgress {
    pub fn hear(&mut self, event: ExtractionEvent) {
        match event {
            ExtractionEvent::Start { set, pictures } => {
                say(format_args!("features of {}", set.display()));
                let total = pictures as u64;
                let display = ProgressDisplay::counting("pictures", total, "features", false);
                self.0 = Some(display);
            }
            ExtractionEvent::Done(pictures) => {
                if let Some(progress) = &mut self.0 {
                    progress.reach(pictures as u64);
                }
            }
            ExtractionEvent::End => {
                if let Some(progress) = self.0.take() {
                    progress.finish();
                }
            }
        }
    }
}
