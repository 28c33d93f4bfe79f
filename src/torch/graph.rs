//! CUDA graphs: what work asks of a GPU, recorded and asked again in one call.
//!
//! Work can be recorded if it only starts kernels: it reads and writes tensors at the same
//! places each time, reads none of them on the host, and has fixed shapes.

use std::any::Any;
use std::ffi::{c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::path::Path;
use std::rc::Rc;
use std::sync::OnceLock;

use tch::Device;

use super::cuda_part::{CudaPart, CudaPartError};
use super::device::DeviceChoice;
use super::shim::{done, outcome, ShimError};

/// Passes of the work before it is recorded, in which libraries settle what they use.
const WARM_UPS: c_int = 2;

/// Why nothing can be recorded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum GraphError {
    #[error("CUDA graphs need a CUDA device, and the device is {0}")]
    Device(DeviceChoice),
    #[error("CUDA graphs: {0}")]
    Part(#[from] CudaPartError),
    #[error("CUDA graphs: {0}")]
    Torch(#[from] ShimError),
}

/// The functions of `csrc/cuda/vqd_graph.cpp`.
#[derive(Clone, Debug)]
struct Functions {
    part: CudaPart,
    recorder: unsafe extern "C" fn(c_int, *mut *mut c_void) -> *mut c_char,
    recorder_free: unsafe extern "C" fn(*mut c_void),
    record: unsafe extern "C" fn(
        *mut c_void,
        c_int,
        extern "C" fn(*mut c_void) -> bool,
        *mut c_void,
        *mut *mut c_void,
    ) -> *mut c_char,
    replay: unsafe extern "C" fn(*mut c_void) -> *mut c_char,
    free: unsafe extern "C" fn(*mut c_void),
}

impl Functions {
    fn load() -> Result<&'static Self, CudaPartError> {
        static FUNCTIONS: OnceLock<Result<Functions, CudaPartError>> = OnceLock::new();
        FUNCTIONS
            .get_or_init(Self::find)
            .as_ref()
            .map_err(Clone::clone)
    }

    fn find() -> Result<Self, CudaPartError> {
        let part = CudaPart::load("graph")?;
        // SAFETY: the types are those of its source.
        unsafe {
            Ok(Functions {
                recorder: part.function(c"vqd_graph_recorder")?,
                recorder_free: part.function(c"vqd_graph_recorder_free")?,
                record: part.function(c"vqd_graph_record")?,
                replay: part.function(c"vqd_graph_replay")?,
                free: part.function(c"vqd_graph_free")?,
                part,
            })
        }
    }
}

/// Where the part that records was found.
///
/// # Errors
///
/// As for [`CudaPart::load`].
pub fn library() -> Result<&'static Path, CudaPartError> {
    Ok(&Functions::load()?.part.path)
}

/// What records work on one device.
pub struct Recorder {
    functions: &'static Functions,
    handle: *mut c_void,
}

impl Recorder {
    /// # Errors
    ///
    /// A device that is not a CUDA one, or a part that is not there.
    pub fn new(device: Device) -> Result<Self, GraphError> {
        let Device::Cuda(index) = device else {
            return Err(GraphError::Device(DeviceChoice(device)));
        };
        let functions = Functions::load()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: `handle` is a place for what the function makes.
        outcome(unsafe { (functions.recorder)(index as c_int, &mut handle) })?;
        Ok(Recorder { functions, handle })
    }

    /// Does `work` a few times and records it once more. The tensors that it reads and
    /// writes must live as long as the graph, and so must those that it makes and that are
    /// read after a replay.
    pub fn record(&self, work: &mut dyn FnMut()) -> Graph {
        let mut call = Call { work, panic: None };
        let mut handle = std::ptr::null_mut();
        // SAFETY: `call` lives through the call, which alone uses it.
        let message = unsafe {
            let data: *mut Call = &mut call;
            (self.functions.record)(
                self.handle,
                WARM_UPS,
                work_of,
                data.cast::<c_void>(),
                &mut handle,
            )
        };
        let panic = call.panic.take();
        let recorded = outcome(message);
        if let Some(panic) = panic {
            resume_unwind(panic);
        }
        if let Err(problem) = recorded {
            panic!("a step could not be recorded as a CUDA graph: {problem}");
        }
        Graph {
            functions: self.functions,
            handle,
            here: PhantomData,
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // SAFETY: made by the same library, and freed once.
        unsafe { (self.functions.recorder_free)(self.handle) }
    }
}

/// Work on its way through C++, where no panic may pass.
struct Call<'a> {
    work: &'a mut dyn FnMut(),
    panic: Option<Box<dyn Any + Send>>,
}

extern "C" fn work_of(data: *mut c_void) -> bool {
    // SAFETY: `data` is the `Call` of `record`, which waits for this function.
    let call = unsafe { &mut *data.cast::<Call>() };
    match catch_unwind(AssertUnwindSafe(&mut *call.work)) {
        Ok(()) => true,
        Err(panic) => {
            call.panic = Some(panic);
            false
        }
    }
}

/// Recorded work.
pub struct Graph {
    functions: &'static Functions,
    handle: *mut c_void,
    /// Belongs to the thread that recorded it.
    here: PhantomData<Rc<()>>,
}

impl Graph {
    /// Does the work again. Like every operator it returns before the device is done.
    pub fn replay(&self) {
        // SAFETY: the graph lives.
        done("a CUDA graph", unsafe {
            (self.functions.replay)(self.handle)
        });
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: made by the same library, and freed once.
        unsafe { (self.functions.free)(self.handle) }
    }
}
