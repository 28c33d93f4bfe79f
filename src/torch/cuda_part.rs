//! Parts of this program that need the CUDA build of libtorch: libraries of their own, which
//! are loaded behind `libtorch_cuda.so` (`csrc/cuda`, built by `scripts/build_cuda`).

use std::ffi::{c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::cuda::CudaLibrary;
use super::runtime;

/// Why a part is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaPartError {
    #[error("libtorch is a CPU build: set up the CUDA one with `scripts/setup --cuda`")]
    NoCuda,
    #[error(
        "{file} is not found in {places}: build it with `scripts/build_cuda {part}` (no GPU is \
         needed)"
    )]
    Absent {
        part: &'static str,
        file: String,
        places: String,
    },
    #[error("{}: {reason}", path.display())]
    Failed { path: PathBuf, reason: String },
}

/// A part that is loaded, for as long as the process lives.
#[derive(Clone, Debug)]
pub struct CudaPart {
    pub path: PathBuf,
    handle: *mut c_void,
}

// SAFETY: a handle of the dynamic loader, which any thread may use.
unsafe impl Send for CudaPart {}
// SAFETY: as above.
unsafe impl Sync for CudaPart {}

impl CudaPart {
    /// Loads the part `part`, `libvqd_<part>.so`.
    ///
    /// # Errors
    ///
    /// No CUDA build of libtorch, no such library, or one for another libtorch.
    pub fn load(part: &'static str) -> Result<Self, CudaPartError> {
        if !matches!(runtime::start(), CudaLibrary::Loaded(_)) {
            return Err(CudaPartError::NoCuda);
        }
        let (file, places) = (format!("libvqd_{part}.so"), places());
        let found = places.iter().map(|folder| folder.join(&file));
        match found.into_iter().find(|path| path.exists()) {
            Some(path) => open(path),
            None => {
                let named = places.iter().map(|folder| folder.display().to_string());
                let places = named.collect::<Vec<_>>().join(", ");
                Err(CudaPartError::Absent { part, file, places })
            }
        }
    }

    /// Its function called `name`.
    ///
    /// # Errors
    ///
    /// There is none.
    ///
    /// # Safety
    ///
    /// `F` must be the type of a pointer to that function.
    pub unsafe fn function<F: Copy>(&self, name: &CStr) -> Result<F, CudaPartError> {
        // SAFETY: dlsym only reads the loader's tables; the caller vouches for the type.
        unsafe {
            let found = libc::dlsym(self.handle, name.as_ptr());
            if found.is_null() {
                let reason = format!("it lacks {}", name.to_string_lossy());
                return Err(failed(self.path.clone(), reason));
            }
            Ok(std::mem::transmute_copy(&found))
        }
    }
}

/// Beside the program, and where `scripts/build_cuda` puts them.
fn places() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(Path::parent);
    let beside = folder.map(|folder| [folder.to_path_buf(), folder.join("../lib")]);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(".libtorch-cuda/lib");
    beside.into_iter().flatten().chain([built]).collect()
}

fn open(path: PathBuf) -> Result<CudaPart, CudaPartError> {
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return Err(failed(path, "a path with a zero in it".into()));
    };
    // SAFETY: the name ends with a zero; dlerror is read straight after the failure.
    unsafe {
        let handle = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        if !handle.is_null() {
            return Ok(CudaPart { path, handle });
        }
        let message = libc::dlerror();
        let reason = match message.is_null() {
            true => "dlopen failed without a message".into(),
            false => CStr::from_ptr(message).to_string_lossy().into_owned(),
        };
        Err(failed(path, reason))
    }
}

fn failed(path: PathBuf, reason: String) -> CudaPartError {
    CudaPartError::Failed { path, reason }
}
