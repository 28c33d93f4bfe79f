//! The diffusion core: schedule, forward and reverse process, objective, samplers.

mod chain;
mod compat;
mod enumeration;
mod noise;
mod objective;
mod posterior;
mod purity;
mod run;
mod sampler;
mod schedule;
mod times;
mod truncation;
