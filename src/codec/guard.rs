//! Runs decoders that are not ours.
//!
//! The Parquet and Arrow IPC readers panic on some damaged documents (bounds and types that they assert). Whoever
//! sends such a document must not end a task, and a panic's text may repeat a piece of the document: so the panic is
//! caught and its text is not printed.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

thread_local! {
    static GUARDED: Cell<bool> = const { Cell::new(false) };
}

static HOOK: Once = Once::new();

/// Runs `decode`; none when it panicked. What it held is dropped.
pub(super) fn guarded<T>(decode: impl FnOnce() -> T) -> Option<T> {
    HOOK.call_once(|| {
        let outer = take_hook();
        set_hook(Box::new(move |info| {
            if !GUARDED.get() {
                outer(info);
            }
        }));
    });
    let before = GUARDED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(decode));
    GUARDED.set(before);
    result.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_of_a_decoder_is_an_answer_and_not_an_end() {
        assert_eq!(guarded(|| 7), Some(7));
        assert_eq!(guarded(|| -> i32 { panic!("not shown") }), None);
        assert!(!GUARDED.get());
    }
}
