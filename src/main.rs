//! The `vqdiffusion` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    vqdiffusion::torch::allocator::keep_large_buffers();
    vqdiffusion::cli::run()
}
