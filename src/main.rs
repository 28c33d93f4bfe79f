//! The `vqdiffusion` command.

use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: vqdiffusion::cli::ReportingAllocator = vqdiffusion::cli::ReportingAllocator;

fn main() -> ExitCode {
    vqdiffusion::torch::runtime::start();
    vqdiffusion::cli::run()
}
