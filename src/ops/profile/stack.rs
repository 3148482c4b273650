//! The stack of another thread of this process: that thread is sent SIGPROF, and its handler walks the stack it interrupted.
//!
//! One thread is asked at a time. The handler does what a signal handler may: it reads and writes atomics, and walks frames. The walk
//! is libgcc's, which takes no lock where glibc is 2.35 or newer; on older ones it may wait for a thread that is loading a library. It allocates nothing.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::io;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Deepest stack; what lies further out is cut.
const DEPTH: usize = 160;

/// How long a thread may take to get a processor and answer.
const PATIENCE: Duration = Duration::from_millis(100);

/// Nobody is asked.
const IDLE: usize = 0;
/// A thread is asked.
const ASKED: usize = 1;
/// Its handler writes.
const WRITING: usize = 2;
/// It has written.
const WRITTEN: usize = 3;

static STATE: AtomicUsize = AtomicUsize::new(IDLE);
static ASKED_THREAD: AtomicI32 = AtomicI32::new(0);
static LENGTH: AtomicUsize = AtomicUsize::new(0);
static FRAMES: [AtomicUsize; DEPTH] = [const { AtomicUsize::new(0) }; DEPTH];

/// Puts the handler in place, once.
///
/// # Errors
/// Another system than Linux on x86-64 or ARM64, or one that refuses.
pub(super) fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), i32>> = OnceLock::new();
    if cfg!(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64")))) {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "threads are sampled on Linux alone, on x86-64 and ARM64",
        ));
    }
    // What is loaded at the first walk is loaded now, and not in a handler.
    backtrace::trace(|_| true);
    let installed = INSTALLED.get_or_init(|| {
        // SAFETY: the structure is plain data and filled in whole; the handler keeps to what handlers may do.
        let failed = unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_signal as *const () as usize;
            // Calls that were interrupted go on by themselves.
            action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART;
            libc::sigemptyset(&raw mut action.sa_mask);
            libc::sigaction(libc::SIGPROF, &raw const action, std::ptr::null_mut())
        };
        if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) }
    });
    installed.map_err(io::Error::from_raw_os_error)
}

/// The calling thread's id.
fn own_id() -> i32 {
    // SAFETY: takes nothing, cannot fail.
    i32::try_from(unsafe { libc::syscall(libc::SYS_gettid) }).unwrap_or(0)
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, context: *mut c_void) {
    if ASKED_THREAD.load(Ordering::Acquire) != own_id()
        || STATE.compare_exchange(ASKED, WRITING, Ordering::AcqRel, Ordering::Acquire).is_err()
    {
        return; // It came too late: nobody waits for it any more.
    }
    let interrupted = interrupted_at(context);
    let (mut length, mut is_past_handler) = (0, false);
    // SAFETY: the walk is not synchronised with others in this process: other walkers (panics) keep no state that it could break.
    unsafe {
        backtrace::trace_unsynchronized(|frame| {
            let address = frame.ip() as usize;
            // The handler's own frames lie within.
            is_past_handler |= address == interrupted;
            if is_past_handler && let Some(slot) = FRAMES.get(length) {
                slot.store(address, Ordering::Relaxed);
                length += 1;
            }
            length < DEPTH
        });
    }
    LENGTH.store(length, Ordering::Relaxed);
    STATE.store(WRITTEN, Ordering::Release);
}

/// Where the thread was when the signal came.
fn interrupted_at(context: *mut c_void) -> usize {
    let context = context.cast::<libc::ucontext_t>();
    // SAFETY: the kernel hands over a context of its own to handlers that were installed with SA_SIGINFO.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    return unsafe { (*context).uc_mcontext.gregs[libc::REG_RIP as usize] } as usize;
    // SAFETY: as above.
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    return unsafe { (*context).uc_mcontext.pc } as usize;
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    return context as usize;
}

/// The stack of a thread of this process, innermost first; none when it does not answer in time or is gone.
pub(super) fn of(thread: i32) -> Option<Vec<usize>> {
    static ONE: Mutex<()> = Mutex::new(());
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    ASKED_THREAD.store(thread, Ordering::Release);
    STATE.store(ASKED, Ordering::Release);
    // SAFETY: sends a signal that has a handler to one thread of this very process.
    let sent = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGPROF) };
    let asked = Instant::now();
    while STATE.load(Ordering::Acquire) != WRITTEN {
        let is_late = sent != 0 || asked.elapsed() >= PATIENCE;
        // Whoever has begun to write comes to its end.
        if is_late && STATE.compare_exchange(ASKED, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok() {
            return None;
        }
        std::thread::sleep(Duration::from_micros(20));
    }
    let length = LENGTH.load(Ordering::Relaxed).min(DEPTH);
    let stack = FRAMES[..length].iter().map(|frame| frame.load(Ordering::Relaxed)).collect();
    STATE.store(IDLE, Ordering::Release);
    Some(stack).filter(|stack: &Vec<usize>| !stack.is_empty())
}

/// The functions at an address, outermost first: more than one where some were inlined; its number when it has no name.
pub(super) fn names(address: usize) -> Vec<String> {
    let mut names = Vec::new();
    backtrace::resolve(address as *mut c_void, |symbol| names.extend(symbol.name().map(|name| format!("{name:#}"))));
    names.reverse();
    if names.is_empty() { vec![format!("{address:#x}")] } else { names }
}

/// Gives back the memory that symbols take.
pub(super) fn forget_symbols() {
    backtrace::clear_symbol_cache();
}
