//! Allocator settings for CPU tensors.

/// Keeps large buffers inside the process instead of giving them back to the
/// kernel after every operator.
///
/// glibc serves blocks above `M_MMAP_THRESHOLD` (128 KiB at first) by `mmap`
/// and unmaps them when freed, so that each operator pays for fresh zeroed
/// pages. Call first thing in `main`, before any thread starts.
pub fn keep_large_buffers() {
    #[cfg(target_env = "gnu")]
    // SAFETY: mallopt only sets integers of the allocator.
    unsafe {
        // The largest threshold that glibc accepts is half of its arena heap size.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 30);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 64 << 20);
    }
}
