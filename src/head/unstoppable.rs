//! Work of others that can't be stopped, on a thread of its own that can be left behind.
//!
//! The thread that is left goes on until its work ends or the process does; what it gives then is dropped.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use crate::{Error, Observer, Result, quiet};

/// How often the observer is asked.
const PAUSE: Duration = Duration::from_millis(20);

/// Why work gave nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// Its panic said this.
    Panicked(String),
    /// It took longer than it was given.
    Overdue,
    /// The system has no thread for it.
    NoThread,
}

/// Waits for what `work` gives, no longer than `limit`.
///
/// # Errors
/// [`Error::Interrupted`] as soon as the observer asks for it.
pub(super) fn wait_for<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    limit: Duration,
    observer: &dyn Observer,
) -> Result<std::result::Result<T, Failure>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let start = Instant::now();
    let begin = move || {
        // Nobody listens where the thread was left behind.
        let _ = sender.send(quiet::run(work));
    };
    if thread::Builder::new().spawn(begin).is_err() {
        return Ok(Err(Failure::NoThread));
    }
    loop {
        if observer.interrupted() {
            return Err(Error::Interrupted);
        }
        match receiver.recv_timeout(PAUSE) {
            Ok(ended) => return Ok(ended.map_err(Failure::Panicked)),
            Err(RecvTimeoutError::Disconnected) => return Ok(Err(Failure::Panicked("it gave nothing".to_owned()))),
            Err(RecvTimeoutError::Timeout) if start.elapsed() >= limit => return Ok(Err(Failure::Overdue)),
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::Quiet;

    const LONG: Duration = Duration::from_secs(3600);

    /// Work that ends when the sender is dropped, and not before.
    fn endless() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
        let (hold, held) = mpsc::channel();
        (hold, move || assert!(held.recv().is_err()))
    }

    #[test]
    fn what_the_work_gives_comes_back_and_so_does_its_panic() {
        assert_eq!(wait_for(|| 7, LONG, &Quiet).unwrap(), Ok(7));
        let panics = || -> u8 { panic!("at 3") };
        let ended = wait_for(panics, LONG, &Quiet).unwrap();
        assert_eq!(ended, Err(Failure::Panicked("at 3".to_owned())));
    }

    #[test]
    fn work_that_never_ends_is_left_behind() {
        let (_hold, work) = endless();
        let ended = wait_for(work, Duration::from_millis(50), &Quiet).unwrap();
        assert_eq!(ended, Err(Failure::Overdue));
    }

    #[test]
    fn an_interruption_is_heard_while_the_work_goes_on() {
        struct Stop;
        impl Observer for Stop {
            fn interrupted(&self) -> bool {
                true
            }
        }
        let (_hold, work) = endless();
        assert!(matches!(wait_for(work, LONG, &Stop), Err(Error::Interrupted)));
    }
}
