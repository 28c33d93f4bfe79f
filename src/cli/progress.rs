//! Progress of long work: a bar on a terminal, plain lines elsewhere.

use std::fmt::Arguments;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::failure;

/// A line on standard error. One that nobody can read any more, as its terminal or reader went
/// away, is no reason to end the work.
pub fn say(line: Arguments) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How often a plain line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// Counts steps, or pieces of another kind, and shows rate and remaining time on standard error.
pub struct ProgressDisplay {
    bar: ProgressBar,
    plain: bool,
    /// What is counted.
    unit: &'static str,
    last_line: Instant,
    /// Steps that were made before.
    first: u64,
}

impl ProgressDisplay {
    /// `total` steps of `what`; nothing is shown if `quiet`.
    pub fn new(total: u64, what: &'static str, quiet: bool) -> Self {
        Self::counting("steps", total, what, quiet)
    }

    /// As [`new`](Self::new), for pieces of another kind.
    pub fn counting(unit: &'static str, total: u64, what: &'static str, quiet: bool) -> Self {
        failure::working(what, unit, total);
        let plain = !console_is_terminal();
        let bar = if quiet || plain {
            ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden())
        } else {
            ProgressBar::new(total)
        };
        let template =
            format!("{{msg}} [{{bar:30}}] {{pos}}/{{len}} {unit}, {{per_sec}}, {{eta}} left");
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_message(what.to_string());
        ProgressDisplay {
            bar,
            plain: plain && !quiet,
            unit,
            last_line: Instant::now(),
            first: 0,
        }
    }

    /// One step is done; `what` names the piece of work it belongs to.
    pub fn step(&mut self, what: &str) {
        self.bar.set_message(what.to_string());
        self.reach(self.bar.position() + 1);
    }

    /// `done` steps are done.
    pub fn reach(&mut self, done: u64) {
        self.bar.set_position(done);
        failure::done(done);
        let what = self.bar.message();
        let done = self.bar.length() == Some(self.bar.position());
        if self.plain && (done || self.last_line.elapsed() >= LINE_EVERY) {
            self.last_line = Instant::now();
            say(format_args!(
                "{what}: {}/{} {unit}, {:.2} {unit}/s, {:.0} s left",
                self.bar.position(),
                self.bar.length().unwrap_or(0),
                (self.bar.position() - self.first) as f64
                    / self.bar.elapsed().as_secs_f64().max(1e-9),
                self.bar.eta().as_secs_f64(),
                unit = self.unit,
            ));
        }
    }

    /// The first `done` steps were made before.
    pub fn start_at(&mut self, done: u64) {
        self.bar.set_position(done);
        failure::done(done);
        self.bar.reset_eta();
        self.first = done;
    }

    /// A line that stays.
    pub fn note(&self, line: &str) {
        if self.plain {
            say(format_args!("{line}"));
        } else {
            self.bar.println(line);
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

fn console_is_terminal() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stderr())
}
