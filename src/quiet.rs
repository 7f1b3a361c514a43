//! Runs a decoder so that its panic becomes a value and prints nothing.
//!
//! Decoders of hostile files may panic, and libjpeg reports its errors by unwinding. Catching alone is not enough: the
//! process's panic hook would still print. So the first call puts a filter before the hook that is in place then; it is
//! silent for threads that are inside [`run`] and passes everything else on.

use std::any::Any;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Once;

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

static FILTER: Once = Once::new();

/// Calls `work`; a panic inside becomes `Err` with its message.
///
/// `work` must not leave anything half-changed that is used afterwards.
pub(crate) fn run<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    FILTER.call_once(|| {
        let previous = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if !DECODING.get() {
                previous(info);
            }
        }));
    });
    let outer = DECODING.replace(true);
    let result = panic::catch_unwind(AssertUnwindSafe(work));
    DECODING.set(outer);
    result.map_err(|payload| message(payload.as_ref()))
}

fn message(payload: &(dyn Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<String>() {
        text.clone()
    } else if let Some(text) = payload.downcast_ref::<&str>() {
        (*text).to_owned()
    } else {
        "the decoder panicked".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_its_message() {
        assert_eq!(run(|| 7), Ok(7));
        assert_eq!(run(|| -> u8 { panic!("at {}", 3) }), Err("at 3".to_owned()));
        assert_eq!(run(|| -> u8 { panic!("plain") }), Err("plain".to_owned()));
        assert!(!DECODING.get());
    }
}
