//! The part of this program that speaks NCCL: a library of its own, as it needs the CUDA build
//! of libtorch, which it is loaded behind.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use super::cuda::CudaLibrary;
use super::runtime;

/// Its file.
const NAME: &str = "libvqd_nccl.so";
const ENTRY: &CStr = c"vqd_nccl_attach";

/// `vqd_nccl_attach` of `csrc/nccl/vqd_nccl.cpp`: group, store, rank, count, device, timeout
/// in milliseconds.
pub(super) type Attach =
    unsafe extern "C" fn(*mut c_void, *mut c_void, c_int, c_int, c_int, i64) -> *mut c_char;

/// Why there is no NCCL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NcclError {
    #[error("libtorch is a CPU build: set up the CUDA one with `scripts/setup --cuda`")]
    NoCuda,
    #[error("{NAME} is not found in {0}: build it with `scripts/build_nccl` (no GPU is needed)")]
    Absent(String),
    #[error("{}: {reason}", path.display())]
    Failed { path: PathBuf, reason: String },
}

/// A library that is loaded.
#[derive(Clone, Debug)]
pub struct Nccl {
    pub path: PathBuf,
    pub(super) attach: Attach,
}

/// Loads the library, once.
///
/// # Errors
///
/// No CUDA build of libtorch, no such library, or one for another libtorch.
pub fn load() -> Result<&'static Nccl, NcclError> {
    static NCCL: OnceLock<Result<Nccl, NcclError>> = OnceLock::new();
    NCCL.get_or_init(find).as_ref().map_err(Clone::clone)
}

fn find() -> Result<Nccl, NcclError> {
    if !matches!(runtime::start(), CudaLibrary::Loaded(_)) {
        return Err(NcclError::NoCuda);
    }
    let places = places();
    match places
        .iter()
        .map(|folder| folder.join(NAME))
        .find(|path| path.exists())
    {
        Some(path) => open(path),
        None => {
            let named = places.iter().map(|folder| folder.display().to_string());
            Err(NcclError::Absent(named.collect::<Vec<_>>().join(", ")))
        }
    }
}

/// Beside the program, and where `scripts/build_nccl` puts it.
fn places() -> Vec<PathBuf> {
    let program = std::env::current_exe().ok();
    let folder = program.as_deref().and_then(Path::parent);
    let beside = folder.map(|folder| [folder.to_path_buf(), folder.join("../lib")]);
    let built = Path::new(env!("CARGO_MANIFEST_DIR")).join(".libtorch-cuda/lib");
    beside.into_iter().flatten().chain([built]).collect()
}

fn open(path: PathBuf) -> Result<Nccl, NcclError> {
    let failed = |path: PathBuf, reason: &str| NcclError::Failed {
        path,
        reason: reason.into(),
    };
    let Ok(name) = CString::new(path.as_os_str().as_bytes()) else {
        return Err(failed(path, "a path with a zero in it"));
    };
    // SAFETY: the name ends with a zero; dlerror is read straight after the failure; the
    // function found has the type that its source says.
    unsafe {
        let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL);
        let entry = match library.is_null() {
            true => std::ptr::null_mut(),
            false => libc::dlsym(library, ENTRY.as_ptr()),
        };
        if entry.is_null() {
            let message = libc::dlerror();
            let reason = match message.is_null() {
                true => "it lacks vqd_nccl_attach".into(),
                false => CStr::from_ptr(message).to_string_lossy().into_owned(),
            };
            return Err(failed(path, &reason));
        }
        let attach = std::mem::transmute::<*mut c_void, Attach>(entry);
        Ok(Nccl { path, attach })
    }
}
