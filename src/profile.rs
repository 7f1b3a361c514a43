//! A trace of what each thread does when, for people who want to see why a run is as fast as it is.
//!
//! The format is the Chrome Trace Event Format, which chrome://tracing and Perfetto (ui.perfetto.dev) open: a JSON array of
//! complete events with a track for each thread. Of its two forms this is the array, which may break off anywhere: an event
//! is written when it ends and nothing is kept, so memory does not grow with the number of pictures. Like everything a user
//! names for output, the file has its name when it is whole ([`Output`]), which is at the end of the run, however that ends.
//!
//! What is traced is for the stages to say; they ask the observer for the [`Profiler`], and where there is none, which is the
//! default, that is all it costs.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::{self, Write as _};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use crate::disk::Output;
use crate::error::{Error, Result};
use crate::observer::Observer;

/// The format wants a process; there is one.
const PROCESS: u32 = 1;
/// Who waits for less is not held up, and most waits would be of that kind.
const LEAST_WAIT: Duration = Duration::from_micros(100);

/// Writes a trace; an [`Observer`] hands it to the work.
pub struct Profiler {
    path: PathBuf,
    start: Instant,
    /// Gone when it is finished.
    trace: Mutex<Option<Trace>>,
}

struct Trace {
    out: BufWriter<Output>,
    /// Tracks of the threads that have one.
    tracks: HashMap<ThreadId, usize>,
    /// The first thing that went wrong; nothing is written after that.
    failed: Option<io::Error>,
}

impl fmt::Debug for Profiler {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Profiler").field(&self.path).finish()
    }
}

impl Profiler {
    /// Begins the trace `path` of a process that is to be called `process`.
    ///
    /// # Errors
    /// When the file can't be created.
    pub fn create(path: &Path, process: &str) -> Result<Self> {
        let mut trace = Trace {
            out: BufWriter::new(Output::create(path)?),
            tracks: HashMap::new(),
            failed: None,
        };
        // The one event that no comma comes before.
        let name = serde_json::Value::from(process);
        trace.write(format_args!(
            r#"[{{"ph":"M","name":"process_name","pid":{PROCESS},"tid":0,"args":{{"name":{name}}}}}"#
        ));
        Ok(Self {
            path: path.to_path_buf(),
            start: Instant::now(),
            trace: Mutex::new(Some(trace)),
        })
    }

    /// Ends the trace: only now the file has its name. What is traced later is lost.
    ///
    /// # Errors
    /// When any of it could not be written.
    pub fn finish(&self) -> Result<()> {
        let Some(mut trace) = self.trace.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return Ok(());
        };
        trace.write(format_args!("\n]\n"));
        let failed = Error::io("write", &self.path);
        if let Some(error) = trace.failed {
            return Err(failed(error));
        }
        match trace.out.into_inner() {
            Ok(output) => output.finish(),
            Err(error) => Err(failed(error.into_error())),
        }
    }

    /// Calls the track of the thread that it is called on `name`.
    pub(crate) fn name_thread(&self, name: &str) {
        let name = serde_json::Value::from(name);
        self.with(|trace, track| {
            trace.event(format_args!(
                r#"{{"ph":"M","name":"thread_name","pid":{PROCESS},"tid":{track},"args":{{"name":{name}}}}}"#
            ));
            // Tracks are shown in the order in which they came, not in that of their names.
            trace.event(format_args!(
                r#"{{"ph":"M","name":"thread_sort_index","pid":{PROCESS},"tid":{track},"args":{{"sort_index":{track}}}}}"#
            ));
        });
    }

    /// Says how many there are of something now.
    pub(crate) fn count(&self, name: &str, series: &[(&str, usize)]) {
        let at = micros(self.start.elapsed());
        let series = arguments(series.iter().map(|(name, value)| (*name, *value as u64)));
        self.with(|trace, _| {
            trace.event(format_args!(
                r#"{{"ph":"C","name":"{name}","pid":{PROCESS},"tid":0,"ts":{at},"args":{{{series}}}}}"#
            ));
        });
    }

    fn complete(&self, name: &str, from: Instant, duration: Duration, details: &[(&'static str, u64)]) {
        let at = micros(from.saturating_duration_since(self.start));
        let duration = micros(duration);
        let details = arguments(details.iter().copied());
        self.with(|trace, track| {
            trace.event(format_args!(
                r#"{{"ph":"X","name":"{name}","pid":{PROCESS},"tid":{track},"ts":{at},"dur":{duration},"args":{{{details}}}}}"#
            ));
        });
    }

    /// Writes something on the track of this thread, if the trace goes on.
    fn with(&self, write: impl FnOnce(&mut Trace, usize)) {
        if let Some(trace) = &mut *self.trace.lock().unwrap_or_else(PoisonError::into_inner) {
            let next = trace.tracks.len() + 1;
            let track = match trace.tracks.entry(std::thread::current().id()) {
                Entry::Occupied(track) => *track.get(),
                Entry::Vacant(place) => *place.insert(next),
            };
            write(trace, track);
        }
    }
}

impl Trace {
    fn event(&mut self, event: fmt::Arguments<'_>) {
        self.write(format_args!(",\n{event}"));
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        if self.failed.is_none() {
            self.failed = self.out.write_fmt(text).err();
        }
    }
}

/// The format's unit, to the nanosecond.
fn micros(duration: Duration) -> String {
    format!("{}.{:03}", duration.as_micros(), duration.subsec_nanos() % 1000)
}

/// Members of a JSON object; names are the code's own and need no escapes.
fn arguments<'a>(pairs: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut text = String::new();
    for (name, value) in pairs {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, r#"{comma}"{name}":{value}"#);
    }
    text
}

/// Something that a thread does from now until it is dropped.
#[must_use = "it ends when it is dropped"]
pub(crate) struct Span<'a> {
    open: Option<Open<'a>>,
}

struct Open<'a> {
    profiler: &'a Profiler,
    name: &'static str,
    from: Instant,
    least: Duration,
    details: Vec<(&'static str, u64)>,
}

impl<'a> Span<'a> {
    /// Begins, if anybody wants to know.
    pub(crate) fn begin(observer: &'a dyn Observer, name: &'static str) -> Self {
        Self::at_least(observer, name, Duration::ZERO)
    }

    /// A span that is only told if it was long enough to matter.
    pub(crate) fn wait(observer: &'a dyn Observer, name: &'static str) -> Self {
        Self::at_least(observer, name, LEAST_WAIT)
    }

    fn at_least(observer: &'a dyn Observer, name: &'static str, least: Duration) -> Self {
        let open = |profiler| Open {
            profiler,
            name,
            from: Instant::now(),
            least,
            details: Vec::new(),
        };
        Self {
            open: observer.profiler().map(open),
        }
    }

    /// Adds a number to what is shown of it.
    pub(crate) fn with(mut self, name: &'static str, value: usize) -> Self {
        if let Some(open) = &mut self.open {
            open.details.push((name, value as u64));
        }
        self
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            let duration = open.from.elapsed();
            if duration >= open.least {
                open.profiler.complete(open.name, open.from, duration, &open.details);
            }
        }
    }
}

/// Calls this thread's track `name`, if there are tracks.
pub(crate) fn name_thread(observer: &dyn Observer, name: impl FnOnce() -> String) {
    if let Some(profiler) = observer.profiler() {
        profiler.name_thread(&name());
    }
}

#[cfg(test)]
#[path = "profile_tests.rs"]
mod tests;
