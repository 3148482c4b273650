//! How the process takes memory from the system. With `stream::ffi` and `ops::profile::stack` the only unsafe code of the package.
#![allow(unsafe_code)]

/// Bounds the C library's heaps to two. By default glibc gives each thread its own, up to eight per core, and what one thread frees
/// another cannot use: with some ninety threads that was a sixth of the peak (437 against 369 MB in `benches/intake.py`, with less CPU).
///
/// Blocks of half a megabyte and more come from the system and go back to it. By default glibc raises that limit up to 32 MB with what
/// is freed, and columns of rows that are gone stay: 453 to 500 against 649 MB at the peak of `benches/pipeline.py`, for the same CPU.
pub fn bound_heaps() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets numbers inside the allocator; called before any other thread runs.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 2);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 512 << 10);
        // Setting the one ends the default's adjustment of the other, which would otherwise be 128 KB.
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 20);
    }
}
