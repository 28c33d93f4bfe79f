//! One binary for CPU and CUDA: `libtorch_cuda.so` is loaded at start-up when
//! it lies beside the `libtorch_cpu.so` that this process runs with.

use std::ffi::{c_int, CStr, CString};
use std::path::{Path, PathBuf};

/// What [`load`] found.
#[derive(Clone, Debug, PartialEq)]
pub enum CudaLibrary {
    /// Loaded from this file.
    Loaded(PathBuf),
    /// This libtorch is a CPU build: no `libtorch_cuda.so` in this folder.
    Absent(PathBuf),
    /// The file is there, but the dynamic loader refused it.
    Failed { path: PathBuf, reason: String },
    /// The folder of the running libtorch could not be found.
    Unknown,
}

/// The folder of the `libtorch_cpu.so` that this process really runs with.
pub fn torch_library_folder() -> Option<PathBuf> {
    // SAFETY: dlsym and dladdr only read the loader's tables; dli_fname is a
    // NUL-terminated string owned by the loader for as long as the library stays.
    unsafe {
        let symbol = libc::dlsym(libc::RTLD_DEFAULT, c"_ZN2at13globalContextEv".as_ptr());
        let mut info: libc::Dl_info = std::mem::zeroed();
        if symbol.is_null() || libc::dladdr(symbol, &mut info) == 0 || info.dli_fname.is_null() {
            return None;
        }
        let file = CStr::from_ptr(info.dli_fname).to_str().ok()?;
        Path::new(file).parent().map(Path::to_path_buf)
    }
}

/// Loads `libtorch_cuda.so` if there is one. Must run before the first question
/// about CUDA: libtorch remembers a first "no".
pub fn load() -> CudaLibrary {
    let Some(folder) = torch_library_folder() else {
        return CudaLibrary::Unknown;
    };
    let path = folder.join("libtorch_cuda.so");
    if !path.exists() {
        return CudaLibrary::Absent(folder);
    }
    match open_globally(&path) {
        Ok(()) => {
            prefer_flash_attention();
            CudaLibrary::Loaded(path)
        }
        Err(reason) => CudaLibrary::Failed { path, reason },
    }
}

extern "C" {
    fn vqd_flash_attention_first() -> bool;
}

/// Makes attention try flash kernels first. libtorch 2.11 prefers cuDNN's on Hopper, which
/// spend tens of milliseconds of host time on a plan for every new shape, and the number of
/// positions that a sampling step asks about changes all the time. Returns whether libtorch
/// took the order.
pub fn prefer_flash_attention() -> bool {
    // SAFETY: sets and reads a list of libtorch's global context.
    unsafe { vqd_flash_attention_first() }
}

/// Bytes that are free on the CUDA device `index`, by the CUDA runtime that came with
/// libtorch; `None` where there is none or it does not know.
pub fn free_memory(index: usize) -> Option<usize> {
    // SAFETY: the functions have had these signatures in every CUDA runtime; 0 is success.
    unsafe {
        let current: unsafe extern "C" fn(*mut c_int) -> c_int = symbol(c"cudaGetDevice")?;
        let select: unsafe extern "C" fn(c_int) -> c_int = symbol(c"cudaSetDevice")?;
        let memory: unsafe extern "C" fn(*mut usize, *mut usize) -> c_int =
            symbol(c"cudaMemGetInfo")?;
        let (mut before, mut free, mut total) = (0, 0, 0);
        if current(&mut before) != 0 || select(c_int::try_from(index).ok()?) != 0 {
            return None;
        }
        let known = memory(&mut free, &mut total) == 0;
        select(before);
        known.then_some(free)
    }
}

/// The loaded function called `name`.
///
/// # Safety
///
/// `F` must be the type of a pointer to that function.
unsafe fn symbol<F: Copy>(name: &CStr) -> Option<F> {
    // SAFETY: dlsym only reads the loader's tables; the caller vouches for the type.
    unsafe {
        let found = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr());
        (!found.is_null()).then(|| std::mem::transmute_copy(&found))
    }
}

fn open_globally(path: &Path) -> Result<(), String> {
    let name = CString::new(path.to_string_lossy().as_bytes()).map_err(|e| e.to_string())?;
    // SAFETY: `name` is NUL-terminated; dlerror is read straight after the failure.
    unsafe {
        if !libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL).is_null() {
            return Ok(());
        }
        let message = libc::dlerror();
        if message.is_null() {
            return Err("dlopen failed without a message".into());
        }
        Err(CStr::from_ptr(message).to_string_lossy().into_owned())
    }
}
