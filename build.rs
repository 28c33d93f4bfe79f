//! Compiles the C++ shim against the same libtorch that `torch-sys` found and
//! links `libtorch_cpu` and `libc10` only: the CUDA library is loaded at run
//! time when it lies beside them (`src/torch/cuda.rs`).

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=csrc");
    let Some(library) = std::env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
        fail("torch-sys names no libtorch");
    };
    let include = library
        .parent()
        .unwrap_or_else(|| Path::new("."))
        .join("include");
    for needed in [
        include.join("torch/csrc/api/include/torch/torch.h"),
        library.join("libtorch_cpu.so"),
    ] {
        if !needed.exists() {
            fail(&format!("{} is missing", needed.display()));
        }
    }

    let shim = || {
        let mut build = cc::Build::new();
        build
            .cpp(true)
            .std("c++17")
            .warnings(false)
            .opt_level(1)
            .debug(false)
            .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
            // As libtorch was built: some of its classes have other members without.
            .flag("-DNDEBUG")
            .flag("-fvisibility=hidden")
            .flag("-isystem")
            .flag(include.display().to_string())
            .flag("-isystem")
            .flag(include.join("torch/csrc/api/include").display().to_string());
        build
    };
    shim()
        .file("csrc/vqd_ops.cpp")
        .file("csrc/terminate.cpp")
        .file("csrc/vqd_c10d.cpp")
        .file("csrc/vqd_attention.cpp")
        .file("csrc/vqd_profile.cpp")
        .compile("vqd_ops");
    // Free of libtorch's headers, and worth optimising in every profile.
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .warnings(false)
        .opt_level(3)
        .debug(false)
        .file("csrc/attention_forward.cpp")
        .file("csrc/attention_backward.cpp")
        .compile("vqd_attention_kernel");
    // Only this file sees the stand-ins for gloo's headers.
    shim()
        .flag("-isystem")
        .flag("csrc/stubs")
        .file("csrc/vqd_gloo.cpp")
        .compile("vqd_gloo");

    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib");
    let library = library.canonicalize().unwrap_or(library);
    // The CUDA libraries of `scripts/setup --cuda` come first where they are there.
    let root = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    if root
        .join(".libtorch/torch/lib")
        .canonicalize()
        .ok()
        .as_ref()
        == Some(&library)
    {
        let cuda = root.join(".libtorch-cuda/torch/lib");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{}", cuda.display());
    }
    println!("cargo:rustc-link-arg=-Wl,-rpath,{}", library.display());
    // RUNPATH and not RPATH, so that LD_LIBRARY_PATH can name another libtorch.
    println!("cargo:rustc-link-arg=-Wl,--enable-new-dtags");
}

/// Ends the build with a message that says what to do.
fn fail(what: &str) -> ! {
    println!("cargo::error=no usable libtorch: {what}. Run scripts/setup first; if it was run, unset LIBTORCH");
    std::process::exit(1);
}
