//! PyTorch's c10d: the store that processes meet in, collective operations over Gloo, and the
//! Reducer, the engine of DistributedDataParallel.

use std::ffi::{c_char, c_int, c_void, CStr, CString};
use std::net::IpAddr;
use std::time::Duration;

use tch::Tensor;
use torch_sys::C_tensor;

use super::nccl::Nccl;
use super::shim::{outcome, pointer};

/// A handle of the shim's.
type Handle = *mut c_void;

extern "C" {
    fn vqd_store_new(
        host: *const c_char,
        port: u16,
        hosts: bool,
        timeout_ms: i64,
        out: *mut Handle,
        taken: *mut u16,
    ) -> *mut c_char;
    fn vqd_store_prefix(store: Handle, prefix: *const c_char, out: *mut Handle) -> *mut c_char;
    fn vqd_store_set(
        store: Handle,
        key: *const c_char,
        value: *const u8,
        length: usize,
    ) -> *mut c_char;
    fn vqd_store_get(
        store: Handle,
        key: *const c_char,
        value: *mut *mut c_char,
        length: *mut usize,
    ) -> *mut c_char;
    fn vqd_store_has(store: Handle, key: *const c_char, has: *mut bool) -> *mut c_char;
    fn vqd_store_add(store: Handle, key: *const c_char, more: i64, sum: *mut i64) -> *mut c_char;
    fn vqd_store_set_first(
        store: Handle,
        key: *const c_char,
        value: *const u8,
        length: usize,
        out: *mut *mut c_char,
        out_length: *mut usize,
    ) -> *mut c_char;
    fn vqd_store_clone(store: Handle, out: *mut Handle) -> *mut c_char;
    fn vqd_store_free(store: Handle);
    fn vqd_group_new(store: Handle, rank: c_int, count: c_int, out: *mut Handle) -> *mut c_char;
    fn vqd_group_name(group: Handle, name: *const c_char) -> *mut c_char;
    fn vqd_gloo_attach(
        group: Handle,
        store: Handle,
        rank: c_int,
        count: c_int,
        interfaces: *const c_char,
        address: *const c_char,
        timeout_ms: i64,
    ) -> *mut c_char;
    fn vqd_group_free(group: Handle);
    fn vqd_all_gather(
        group: Handle,
        input: *mut C_tensor,
        outs: *const *mut C_tensor,
        count: usize,
    ) -> *mut c_char;
    fn vqd_all_reduce(group: Handle, tensor: *mut C_tensor) -> *mut c_char;
    fn vqd_broadcast(group: Handle, tensors: *const *mut C_tensor, count: usize) -> *mut c_char;
    fn vqd_reducer_new(
        group: Handle,
        parameters: *const *mut C_tensor,
        count: usize,
        bf16: bool,
        out: *mut Handle,
    ) -> *mut c_char;
    fn vqd_reducer_prepare(reducer: Handle, reduces: bool) -> *mut c_char;
    fn vqd_reducer_check(reducer: Handle) -> *mut c_char;
    fn vqd_reducer_free(reducer: Handle);
    fn vqd_free(message: *mut c_char);
}

/// What c10d says of a failure; its first line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct C10dError(String);

fn checked(message: *mut c_char) -> Result<(), C10dError> {
    outcome(message).map_err(|error| {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        C10dError(first.to_string())
    })
}

fn text(text: &str) -> Result<CString, C10dError> {
    CString::new(text).map_err(|_| C10dError(format!("{text:?} has a zero in it")))
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn pointers(tensors: &[&Tensor]) -> Vec<*mut C_tensor> {
    tensors.iter().map(|tensor| pointer(tensor)).collect()
}

// SAFETY of the calls below: handles are the shim's own and live as long as what holds them;
// lists hold as many tensors as is said, and these live through the call.

/// Values by name that all processes see, over TCP.
pub struct Store(Handle);

// SAFETY: a store has no ties to the thread that made it; one thread at a time uses it.
unsafe impl Send for Store {}

impl Store {
    /// A store in this process at `port`, or at a free one for 0; with the port that it has.
    ///
    /// # Errors
    ///
    /// No port to be had.
    pub fn host(port: u16, timeout: Duration) -> Result<(Self, u16), C10dError> {
        Self::new("127.0.0.1", port, true, timeout)
    }

    /// A connection of its own to the same store, for another thread.
    ///
    /// # Errors
    ///
    /// A store that does not answer.
    pub fn again(&self) -> Result<Self, C10dError> {
        let mut out = std::ptr::null_mut();
        // SAFETY: the handle is the store's own, the answer goes to a place that lives.
        checked(unsafe { vqd_store_clone(self.0, &mut out) })?;
        Ok(Store(out))
    }

    /// The store at this place, or one in this process if it `hosts` it.
    ///
    /// # Errors
    ///
    /// Nobody answering within `timeout`.
    pub fn at(host: &str, port: u16, hosts: bool, timeout: Duration) -> Result<Self, C10dError> {
        Ok(Self::new(host, port, hosts, timeout)?.0)
    }

    fn new(
        host: &str,
        port: u16,
        hosts: bool,
        timeout: Duration,
    ) -> Result<(Self, u16), C10dError> {
        let (host, mut out, mut taken) = (text(host)?, std::ptr::null_mut(), 0);
        // SAFETY: the name ends with a zero, the answers go to places that live.
        checked(unsafe {
            let timeout = milliseconds(timeout);
            vqd_store_new(host.as_ptr(), port, hosts, timeout, &mut out, &mut taken)
        })?;
        Ok((Store(out), taken))
    }

    /// The same store with `prefix` and a slash before every name.
    pub fn below(&self, prefix: &str) -> Result<Self, C10dError> {
        let (prefix, mut out) = (text(prefix)?, std::ptr::null_mut());
        // SAFETY: the handle is the store's own, the name ends with a zero.
        checked(unsafe { vqd_store_prefix(self.0, prefix.as_ptr(), &mut out) })?;
        Ok(Store(out))
    }

    pub fn set(&self, name: &str, value: &[u8]) -> Result<(), C10dError> {
        let name = text(name)?;
        // SAFETY: the handle is the store's own, the value has that many bytes.
        checked(unsafe { vqd_store_set(self.0, name.as_ptr(), value.as_ptr(), value.len()) })
    }

    /// The value of `name`, which is waited for.
    pub fn get(&self, name: &str) -> Result<Vec<u8>, C10dError> {
        let (name, mut value, mut length) = (text(name)?, std::ptr::null_mut(), 0);
        // SAFETY: the handle is the store's own, the answers go to places that live.
        checked(unsafe { vqd_store_get(self.0, name.as_ptr(), &mut value, &mut length) })?;
        // SAFETY: on success there are that many bytes of the shim's.
        Ok(unsafe { taken(value, length) })
    }

    /// The value of `name` if it has one.
    pub fn try_get(&self, name: &str) -> Result<Option<Vec<u8>>, C10dError> {
        let (c_name, mut has) = (text(name)?, false);
        // SAFETY: the handle is the store's own, the answer goes to a place that lives.
        checked(unsafe { vqd_store_has(self.0, c_name.as_ptr(), &mut has) })?;
        has.then(|| self.get(name)).transpose()
    }

    /// Gives `name` this value if it has none, and returns the one that it has then.
    pub fn set_first(&self, name: &str, value: &[u8]) -> Result<Vec<u8>, C10dError> {
        let (name, mut out, mut length) = (text(name)?, std::ptr::null_mut(), 0);
        // SAFETY: the handle is the store's own, the value has that many bytes, the answers go
        // to places that live.
        checked(unsafe {
            let (name, bytes) = (name.as_ptr(), value.as_ptr());
            vqd_store_set_first(self.0, name, bytes, value.len(), &mut out, &mut length)
        })?;
        // SAFETY: on success there are that many bytes of the shim's.
        Ok(unsafe { taken(out, length) })
    }

    /// Adds to the number `name`, which begins with 0, and returns the sum.
    pub fn add(&self, name: &str, more: i64) -> Result<i64, C10dError> {
        let (name, mut sum) = (text(name)?, 0);
        // SAFETY: the handle is the store's own, the answer goes to a place that lives.
        checked(unsafe { vqd_store_add(self.0, name.as_ptr(), more, &mut sum) })?;
        Ok(sum)
    }
}

/// The bytes that the shim allocated, which are freed.
///
/// # Safety
///
/// There are `length` bytes at `value`, and nothing reads them behind this.
unsafe fn taken(value: *mut c_char, length: usize) -> Vec<u8> {
    // SAFETY: the caller vouches for them.
    unsafe {
        let bytes = std::slice::from_raw_parts(value.cast::<u8>(), length).to_vec();
        vqd_free(value);
        bytes
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: the handle is the store's own, and freed once.
        unsafe { vqd_store_free(self.0) }
    }
}

/// Processes that compute together, of which this is one; tensors on the CPU over Gloo, those
/// on a GPU over NCCL.
pub struct Group {
    handle: Handle,
    pub rank: usize,
    pub count: usize,
}

impl Group {
    /// The group of `count` processes that meet in `store`. An operation that some of them do
    /// not come to fails after `timeout`. They connect over the network interfaces that
    /// `GLOO_SOCKET_IFNAME` names, or the one that has `address`.
    ///
    /// # Errors
    ///
    /// Processes that do not come.
    pub fn gloo(
        store: &Store,
        rank: usize,
        count: usize,
        address: IpAddr,
        timeout: Duration,
    ) -> Result<Self, C10dError> {
        let (ours, all) = (rank as c_int, count as c_int);
        let mut handle = std::ptr::null_mut();
        // SAFETY: the store lives, the answer goes to a place that lives.
        checked(unsafe { vqd_group_new(store.0, ours, all, &mut handle) })?;
        let group = Group {
            handle,
            rank,
            count,
        };
        let below = store.below("cpu")?;
        let timeout = milliseconds(timeout);
        let interfaces = std::env::var("GLOO_SOCKET_IFNAME").ok();
        let interfaces = interfaces.filter(|names| !names.is_empty());
        let interfaces = interfaces.as_deref().map(text).transpose()?;
        let interfaces = interfaces.as_deref().map_or(std::ptr::null(), CStr::as_ptr);
        let address = text(&address.to_string())?;
        let address = address.as_ptr();
        // SAFETY: both handles live, and so do the names, which end with a zero.
        checked(unsafe {
            vqd_gloo_attach(handle, below.0, ours, all, interfaces, address, timeout)
        })?;
        group.set_name()?;
        Ok(group)
    }

    /// From now on tensors on the CUDA device `device` are exchanged too, over NCCL.
    ///
    /// # Errors
    ///
    /// What NCCL says.
    pub fn add_nccl(
        &self,
        nccl: &Nccl,
        store: &Store,
        device: usize,
        timeout: Duration,
    ) -> Result<(), C10dError> {
        let below = store.below("cuda")?;
        let (rank, count) = (self.rank as c_int, self.count as c_int);
        let (device, timeout) = (device as c_int, milliseconds(timeout));
        // SAFETY: both handles live, and the function is what its library says.
        checked(unsafe { (nccl.attach)(self.handle, below.0, rank, count, device, timeout) })?;
        self.set_name()
    }

    fn set_name(&self) -> Result<(), C10dError> {
        let name = text("training")?;
        // SAFETY: the handle lives, the name ends with a zero.
        checked(unsafe { vqd_group_name(self.handle, name.as_ptr()) })
    }

    /// The tensors of all processes, by rank; they have one shape.
    pub fn all_gather(&self, tensor: &Tensor) -> Result<Vec<Tensor>, C10dError> {
        let _no_grad = tch::no_grad_guard();
        let own = tensor.contiguous();
        let all: Vec<Tensor> = (0..self.count).map(|_| own.empty_like()).collect();
        let outs = pointers(&all.iter().collect::<Vec<_>>());
        // SAFETY: the handle is the group's own, the tensors live and are as many as said.
        checked(unsafe { vqd_all_gather(self.handle, pointer(&own), outs.as_ptr(), outs.len()) })?;
        Ok(all)
    }

    /// The sum of the tensors of all processes.
    pub fn sum(&self, tensor: &Tensor) -> Result<Tensor, C10dError> {
        let _no_grad = tch::no_grad_guard();
        let sum = tensor.contiguous().copy();
        // SAFETY: the handle is the group's own, the tensor lives.
        checked(unsafe { vqd_all_reduce(self.handle, pointer(&sum)) })?;
        Ok(sum)
    }

    /// Gives `tensors` the values that they have in rank 0.
    pub fn broadcast(&self, tensors: &[&Tensor]) -> Result<(), C10dError> {
        let list = pointers(tensors);
        // SAFETY: the handle is the group's own, the tensors live and are as many as said.
        checked(unsafe { vqd_broadcast(self.handle, list.as_ptr(), list.len()) })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: the handle is the group's own, and freed once.
        unsafe { vqd_group_free(self.handle) }
    }
}

/// Averages the gradients of all processes while the backward pass goes on.
pub struct Reducer(Handle);

impl Reducer {
    /// For these leaf tensors, all of which every reducing backward pass gives a gradient.
    /// With `bf16` gradients are rounded to that before they are sent.
    ///
    /// # Errors
    ///
    /// Tensors that differ in shape between processes.
    pub fn new(group: &Group, parameters: &[&Tensor], bf16: bool) -> Result<Self, C10dError> {
        let (list, mut out) = (pointers(parameters), std::ptr::null_mut());
        let count = list.len();
        // SAFETY: the group lives, the tensors live and are as many as said.
        checked(unsafe { vqd_reducer_new(group.handle, list.as_ptr(), count, bf16, &mut out) })?;
        Ok(Reducer(out))
    }

    /// Called before each forward pass: with `reduces` its backward pass ends with averaged
    /// gradients, without it adds to those of this process.
    pub fn prepare(&self, reduces: bool) -> Result<(), C10dError> {
        // SAFETY: the handle is the reducer's own.
        checked(unsafe { vqd_reducer_prepare(self.0, reduces) })
    }

    /// Called after a backward pass that reduces.
    ///
    /// # Errors
    ///
    /// Gradients that did not come.
    pub fn check(&self) -> Result<(), C10dError> {
        // SAFETY: the handle is the reducer's own.
        checked(unsafe { vqd_reducer_check(self.0) })
    }
}

impl Drop for Reducer {
    fn drop(&mut self) {
        // SAFETY: the handle is the reducer's own, and freed once.
        unsafe { vqd_reducer_free(self.0) }
    }
}
