//! How the process takes memory from the system. With `stream::ffi` and `ops::profile::stack` the only unsafe code of the package.
#![allow(unsafe_code)]

/// Bounds the C library's heaps to two. By default glibc gives each thread its own, up to eight per core, and what one thread frees
/// another cannot use: with some ninety threads that was a sixth of the peak (437 against 369 MB in `benches/intake.py`, with less CPU).
pub fn bound_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number inside the allocator; called before any other thread runs.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
    }
}
