//! Compiles the C++ shim against the same libtorch that `torch-sys` found and
//! links `libtorch_cpu` and `libc10` only: the CUDA library is loaded at run
//! time when it lies beside them (`src/torch/cuda.rs`).

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=csrc");
    let library = std::env::var("DEP_TCH_LIBTORCH_LIB")
        .map(PathBuf::from)
        .unwrap_or_else(|_| panic!("torch-sys reported no libtorch; run scripts/setup first"));
    let include = library
        .parent()
        .unwrap_or_else(|| Path::new("."))
        .join("include");

    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .opt_level(1)
        .debug(false)
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .flag("-fvisibility=hidden")
        .flag("-isystem")
        .flag(include.display().to_string())
        .flag("-isystem")
        .flag(include.join("torch/csrc/api/include").display().to_string())
        .file("csrc/vqd_ops.cpp")
        .compile("vqd_ops");

    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    let library = library.canonicalize().unwrap_or(library);
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
}
