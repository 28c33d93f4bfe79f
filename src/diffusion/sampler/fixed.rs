//! Steps of the exact process at fixed places in memory: the inputs of every step of one
//! shape are copied to the same tensors. A GPU can then record a step as one graph, whose
//! replay costs the host one call in place of hundreds.

use std::collections::HashMap;
use std::rc::Rc;

use tch::Tensor;

use super::activity::Widths;
use super::error::Stopped;
use super::exact::{redraw, run, Redrawn, StepInput};
use super::plan::SamplingPlan;
use super::run::{Denoise, Observe, Reuse, Start};
use crate::diffusion::noise::Noise;
use crate::diffusion::posterior::StepNoise;
use crate::torch::graph::{Graph, Recorder};

/// The steps of runs of one plan, over one network with the same tensors for condition.
pub struct FixedSteps {
    recorder: Option<Rc<Recorder>>,
    steps: HashMap<Shape, FixedStep>,
}

/// What the tensors of a step look like.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Shape {
    batch: i64,
    length: i64,
    active: i64,
    null: bool,
}

struct FixedStep {
    // In the order to drop them: the graph uses the tensors.
    graph: Option<Graph>,
    input: StepInput,
    output: Redrawn,
}

impl FixedSteps {
    /// Steps that `recorder` records as CUDA graphs, one for each shape; without one they
    /// are evaluated each time.
    pub fn new(recorder: Option<Rc<Recorder>>) -> Self {
        FixedSteps {
            recorder,
            steps: HashMap::new(),
        }
    }

    /// How many shapes were met so far.
    pub fn shapes(&self) -> usize {
        self.steps.len()
    }

    /// What `step` makes of `input`: evaluated at fixed places, the tokens copied from them.
    /// The probabilities lie there until the next step.
    fn redraw(
        &mut self,
        input: &StepInput,
        null: bool,
        step: &mut dyn FnMut(&StepInput) -> Redrawn,
    ) -> Redrawn {
        let size = input.positions.size();
        let shape = Shape {
            batch: size[0],
            length: input.tokens.size()[1],
            active: size[1],
            null,
        };
        let recorder = self.recorder.as_deref();
        let fixed = match self.steps.get_mut(&shape) {
            Some(fixed) => {
                fixed.input.fill(input);
                match &fixed.graph {
                    Some(graph) => graph.replay(),
                    None => fixed.output = step(&fixed.input),
                }
                fixed
            }
            None => {
                let fixed = FixedStep::new(input, recorder, step);
                self.steps.entry(shape).or_insert(fixed)
            }
        };
        Redrawn {
            tokens: fixed.output.tokens.copy(),
            p: fixed.output.p.shallow_clone(),
        }
    }
}

impl FixedStep {
    /// At places of its own, where it is evaluated once.
    fn new(
        input: &StepInput,
        recorder: Option<&Recorder>,
        step: &mut dyn FnMut(&StepInput) -> Redrawn,
    ) -> Self {
        let input = input.copy();
        let Some(recorder) = recorder else {
            let output = step(&input);
            return FixedStep {
                graph: None,
                input,
                output,
            };
        };
        let mut output = None;
        let graph = recorder.record(&mut || output = Some(step(&input)));
        let output = output.expect("recording evaluates the step");
        graph.replay();
        FixedStep {
            graph: Some(graph),
            input,
            output,
        }
    }
}

impl StepInput {
    /// The same values at new places.
    fn copy(&self) -> Self {
        StepInput {
            tokens: self.tokens.copy(),
            t: self.t.copy(),
            positions: self.positions.copy(),
            noise: StepNoise {
                code: self.noise.code.copy(),
                choice: self.noise.choice.copy(),
                replacement: self.noise.replacement.copy(),
            },
            bounds: self.bounds.copy(),
        }
    }

    /// Takes the values of `other`, of the same shapes, to where its own are.
    fn fill(&mut self, other: &StepInput) {
        let pairs: [(&mut Tensor, &Tensor); 7] = [
            (&mut self.tokens, &other.tokens),
            (&mut self.t, &other.t),
            (&mut self.positions, &other.positions),
            (&mut self.noise.code, &other.noise.code),
            (&mut self.noise.choice, &other.noise.choice),
            (&mut self.noise.replacement, &other.noise.replacement),
            (&mut self.bounds, &other.bounds),
        ];
        for (own, other) in pairs {
            own.copy_(other);
        }
    }
}

/// As [`exact::sample`](super::exact::sample), by `steps`, with the same tokens where the
/// plan's [steps are alike](SamplingPlan::has_like_steps); local ones are evaluated in full.
/// The network is asked through `denoise` where a step is evaluated, and otherwise not.
pub fn sample(
    plan: &SamplingPlan,
    steps: &mut FixedSteps,
    start: Start,
    denoise: &mut Denoise,
    noise: &mut dyn Noise,
    observe: &mut Observe,
) -> Result<Tensor, Stopped> {
    let _no_grad = tch::no_grad_guard();
    let mut one = |input: &StepInput, null: bool, _: Reuse| {
        steps.redraw(input, null, &mut |input| {
            redraw(plan, input, null, Reuse::Nothing, denoise)
        })
    };
    run(plan, Widths::Few, start, &mut one, noise, observe)
}
