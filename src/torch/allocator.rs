//! Allocator settings for CPU tensors.

/// Keeps large buffers inside the process instead of giving them back to the
/// kernel after every operator.
///
/// glibc serves large blocks by `mmap` and unmaps them when freed, so that each
/// operator pays for fresh zeroed pages; its threshold for that cannot be raised above
/// 32 MiB, so mapping is switched off. Call first thing in `main`, before any thread
/// starts.
pub fn keep_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets integers of the allocator.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
