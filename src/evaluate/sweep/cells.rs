//! The cells of a sweep: every combination of the values of its axes.

use serde::Serialize;

use crate::diffusion::truncation::Truncation;
use crate::diffusion::ReverseRule;
use crate::pipeline::PictureOptions;

/// Values of each axis; the options' own where there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Axes {
    pub steps: Vec<usize>,
    pub guidance: Vec<f64>,
    /// Rates in (0, 1]; 1 keeps all codes.
    pub truncation: Vec<f64>,
    pub rules: Vec<ReverseRule>,
}

/// One combination.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Cell {
    pub steps: usize,
    pub guidance: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub truncation: Option<f64>,
    pub rule: ReverseRule,
}

impl Axes {
    /// Every combination, steps fastest; what has no axis is as in `options`.
    pub fn cells(&self, options: &PictureOptions) -> Vec<Cell> {
        fn or<T: Clone>(values: &[T], usual: T) -> Vec<T> {
            match values.is_empty() {
                true => vec![usual],
                false => values.to_vec(),
            }
        }
        let mut cells = Vec::new();
        let truncations: Vec<Option<f64>> = match self.truncation.is_empty() {
            true => vec![None],
            false => self.truncation.iter().copied().map(Some).collect(),
        };
        for rule in or(&self.rules, options.rule) {
            for &truncation in &truncations {
                for guidance in or(&self.guidance, options.guidance) {
                    for steps in or(&self.steps, options.steps) {
                        cells.push(Cell {
                            steps,
                            guidance,
                            truncation,
                            rule,
                        });
                    }
                }
            }
        }
        cells
    }
}

/// The rule as reports spell it.
fn rule_name(rule: ReverseRule) -> &'static str {
    match rule {
        ReverseRule::Exact => "exact",
        ReverseRule::Official => "official",
        ReverseRule::Diffusers => "diffusers",
    }
}

impl Cell {
    /// `options` with the cell's values.
    pub fn apply(&self, options: &PictureOptions) -> PictureOptions {
        let mut options = options.clone();
        if options.rule != self.rule {
            options = options.rule(self.rule);
        }
        options = options.steps(self.steps).guidance(self.guidance);
        match self.truncation {
            Some(rate) => options.truncation(Truncation::TopP(rate)),
            None => options,
        }
    }

    /// The name of its folder.
    pub fn name(&self) -> String {
        let truncation = self
            .truncation
            .map_or("usual".into(), |rate| format!("{rate}"));
        format!(
            "{}-guidance-{}-truncation-{truncation}-steps-{:04}",
            rule_name(self.rule),
            self.guidance,
            self.steps
        )
    }

    /// What it has in common with the cells of other steps.
    pub fn line(&self) -> String {
        let mut name = format!("guidance {}", self.guidance);
        if let Some(rate) = self.truncation {
            name += &format!(", truncation {rate}");
        }
        if self.rule != ReverseRule::Exact {
            name += &format!(", {} rule", rule_name(self.rule));
        }
        name
    }

    pub fn rule_name(&self) -> &'static str {
        rule_name(self.rule)
    }
}
