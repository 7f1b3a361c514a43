//! Files to features: reading, hashing, decoding and inference at the same time, in bounded memory.
//!
//! ```text
//! supply ─► readers ──────► pictures ─► workers ─────────────► tensors ─► workers or GPU ─► results ─► the caller's thread
//!           read, hash,                 decode, resize,                   batches                      features, failures
//!           look up                     normalise
//! ```
//! Readers wait for the disk and compute next to nothing. There are as many workers as threads are asked for, and each does
//! what is most urgent: a batch, if one is full, with a session of its own, else the next picture. On a GPU, which takes one
//! batch after another from a thread of its own, workers only decode.
//!
//! A picture is read and decoded once for all views that are wanted of it; each view is a tensor of its own, so memory does
//! not grow with them, and they come together again at the end. A tensor carries the index of its picture and its view
//! through all stages, so a feature can't come to belong to another one. A picture that can't be read or decoded is a
//! result like any other.

mod backlog;
mod gather;
mod plan;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::backbone::Session;
use crate::dataset::Stamp;
use crate::engine::Engine;
use crate::error::Result;
use crate::observer::Observer;
use crate::picture::{Completeness, Decoded, PictureError, RandomCrop, Reason, Room, Wanted};
use crate::profile::{Span, name_thread};
use crate::supply::{Work, read};
use crate::views::View;

use backlog::{Backlog, Capacity, Role, Task};
use gather::{Told, collect};
pub use plan::Busy;
pub(crate) use plan::{Asked, Ended, Lacking, Outcome, Plan, Processed};

/// Tensors that may wait at least: what the cores decode while the first session is being opened.
const SHORTEST_QUEUE: usize = 32;
/// Pictures that may wait for each reader.
const PICTURES_PER_READER: usize = 2;

/// Which picture something belongs to.
#[derive(Debug, Clone, Copy)]
struct Subject {
    index: usize,
    stamp: Stamp,
    content: Option<[u8; 32]>,
}

impl Subject {
    fn came_to(self, outcome: Outcome) -> Processed {
        let Self { index, stamp, content } = self;
        Processed {
            index,
            stamp,
            content,
            outcome,
        }
    }
}

/// A view of a picture among those that are wanted of it.
#[derive(Debug, Clone, Copy)]
struct Seen {
    subject: Subject,
    completeness: Completeness,
    view: View,
    /// How many views of the picture come after it.
    following: usize,
    /// How many there are in all.
    of: usize,
}

/// A view on its way to the backbone.
#[derive(Debug)]
struct Tensor {
    seen: Seen,
    values: Vec<f32>,
}

/// A picture on its way to be decoded.
#[derive(Debug)]
struct ReadPicture {
    subject: Subject,
    bytes: Vec<u8>,
    /// Kept as long as the bytes.
    _room: Room,
    /// Those that are wanted and lacking, one at least.
    views: Vec<View>,
}

/// What the threads of one run share.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    engine: &'a Engine<'a>,
    observer: &'a dyn Observer,
    backlog: Backlog,
    /// How many sessions share the cores, on the CPU.
    sessions: usize,
    /// Whether the supply came to its end.
    exhausted: AtomicBool,
    /// Whether a picture was begun and not finished.
    left_out: AtomicBool,
    stop: AtomicBool,
    /// Threads that run batches.
    inferring: AtomicUsize,
    /// First halves of the contents that were seen, and whether their random views were wanted; the caller tells whole ones
    /// apart.
    claimed: Mutex<HashMap<[u8; 16], bool>>,
    disk_ns: AtomicU64,
    decode_ns: AtomicU64,
    inference_ns: AtomicU64,
}

/// Where the threads of a run send what they come to.
type Results = SyncSender<Result<Told>>;

/// Runs all pictures of `plan` through the pipeline; `sink` gets each result, in no particular order, and every now and
/// then `None` so that it can do what is due by time.
///
/// # Errors
/// What opening or running the backbone gives, the supply, or `sink`: then the run is stopped.
pub(crate) fn run(
    plan: &Plan<'_>,
    engine: &Engine<'_>,
    observer: &dyn Observer,
    sink: &mut dyn FnMut(Option<Processed>) -> Result<()>,
) -> Result<Ended> {
    let count = plan.supply.count().unwrap_or(usize::MAX);
    let sessions = engine.workers(count.saturating_mul(plan.most_views));
    let decoders = engine.decode_threads().min(count).max(1);
    let capacity = Capacity {
        pictures: PICTURES_PER_READER * decoders,
        tensors: (engine.batch_size() * 2).max(SHORTEST_QUEUE),
        batch: engine.batch_size(),
        sessions,
    };
    let shared = Shared {
        plan,
        engine,
        observer,
        backlog: Backlog::new(decoders, count, capacity),
        sessions,
        exhausted: AtomicBool::new(false),
        left_out: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        inferring: AtomicUsize::new(0),
        claimed: Mutex::default(),
        disk_ns: AtomicU64::new(0),
        decode_ns: AtomicU64::new(0),
        inference_ns: AtomicU64::new(0),
    };
    let (results, collected) = sync_channel::<Result<Told>>(256);
    let start = Instant::now();
    let ended = std::thread::scope(|scope| {
        let shared = &shared;
        name_thread(observer, || "collect and write".to_owned());
        for number in 1..=decoders {
            let results = results.clone();
            scope.spawn(move || {
                name_thread(observer, || format!("read {number}"));
                shared.guarded(&|| shared.read_all(&results));
            });
        }
        for number in 1..=decoders.max(sessions) {
            let results = results.clone();
            let (role, name) = match (number <= decoders, number <= sessions) {
                (true, true) => (Role::Worker, "decode and infer"),
                (true, false) => (Role::Decoder, "decode"),
                (false, _) => (Role::Runner, "infer"),
            };
            scope.spawn(move || {
                name_thread(observer, || format!("{name} {number}"));
                shared.guarded(&|| shared.work(role, &results));
            });
        }
        let to_open = results.clone();
        scope.spawn(move || {
            name_thread(observer, || "open the backbone".to_owned());
            shared.guarded(&|| shared.open(&to_open));
        });
        drop(results);
        // Moved in here so that a panic in the sink drops it: then nobody waits for ever to hand over a result.
        let collected = collected;
        collect(&collected, sink).inspect_err(|_| {
            // The threads end at their next step: nobody listens any more, and nothing new is begun.
            shared.end();
            while collected.recv().is_ok() {}
        })
    });
    ended?;
    let wall = start.elapsed().as_secs_f64().max(1e-9);
    let share = |spent: &AtomicU64, threads: usize| spent.load(Ordering::Relaxed) as f64 / 1e9 / wall / threads as f64;
    let busy = Busy {
        // On a GPU there is one of them, whatever the number of cores.
        inference: share(&shared.inference_ns, shared.inferring.load(Ordering::Relaxed).max(1)),
        decode: share(&shared.decode_ns, decoders),
        disk: share(&shared.disk_ns, decoders),
    };
    let interrupted = !shared.exhausted.load(Ordering::Relaxed) || shared.left_out.load(Ordering::Relaxed);
    Ok(Ended { busy, interrupted })
}

impl Shared<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.observer.interrupted()
    }

    /// Nothing new is begun, and nobody waits.
    fn end(&self) {
        self.stop.store(true, Ordering::Relaxed);
        self.backlog.close();
    }

    /// Does a thread's work; if it panics, the others end too.
    fn guarded(&self, work: &dyn Fn()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            self.end();
            resume_unwind(panic);
        }
    }

    /// Ends the run with an error.
    fn fail(&self, error: crate::Error, results: &Results) {
        let _ = results.send(Err(error));
        self.end();
    }

    /// A reader: hands over pictures that are to be decoded, until there are no more.
    fn read_all(&self, results: &Results) {
        while !self.stopped() {
            let work = match self.plan.supply.next() {
                Ok(Some(work)) => work,
                Ok(None) => {
                    self.exhausted.store(true, Ordering::Relaxed);
                    break;
                }
                Err(error) => {
                    // Nobody else finds more there; what was given before goes through.
                    self.stop.store(true, Ordering::Relaxed);
                    let _ = results.send(Err(error));
                    break;
                }
            };
            let given = match self.read_one(work) {
                Ok(picture) => {
                    let _wait = self.wait("wait until there is room for a picture");
                    self.backlog.offer(picture)
                }
                Err(processed) => {
                    self.backlog.leave_out();
                    results.send(Ok(Told::Ended(processed))).is_ok()
                }
            };
            if !given {
                break;
            }
        }
        self.backlog.reader_is_done();
    }

    /// A thread that decodes and runs batches, until there are no more.
    fn work(&self, role: Role, results: &Results) {
        let mut session = None;
        while let Some(task) = self.next(role) {
            let goes_on = match task {
                Task::Infer(batch) => self.infer_and_tell(&mut session, batch, results),
                Task::Decode(picture) => {
                    let goes_on = self.decode_and_put(*picture, role, &mut session, results);
                    self.backlog.is_decoded();
                    goes_on
                }
            };
            if !goes_on {
                break;
            }
        }
        if let Some(session) = session {
            self.engine.give_back(session);
        }
    }

    fn next(&self, role: Role) -> Option<Task> {
        let task = {
            let _wait = self.wait("wait for something to do");
            self.backlog.next(role)
        };
        if let Some(profiler) = self.observer.profiler() {
            let (pictures, tensors) = self.backlog.lengths();
            profiler.count("waiting", &[("pictures", pictures), ("tensors", tensors)]);
        }
        task
    }

    fn span(&self, name: &'static str) -> Span<'_> {
        Span::begin(self.observer, name)
    }

    fn wait(&self, name: &'static str) -> Span<'_> {
        Span::wait(self.observer, name)
    }

    /// Opens the first session as soon as it is sure that one is needed. On the CPU workers take it from there, else it is
    /// used here.
    fn open(&self, results: &Results) {
        if !self.backlog.begins() {
            return;
        }
        let session = match self.engine.take(self.sessions) {
            Ok(session) => session,
            Err(error) => return self.fail(error, results),
        };
        let is_cpu = session.device_name() == "cpu";
        self.engine.give_back(session);
        if is_cpu {
            self.backlog.let_workers_infer();
        } else {
            // Only now it is known to be one: `auto` may be either.
            self.backlog.let_device_infer(self.engine.batch_size());
            self.work(Role::Device, results);
        }
    }

    /// Reads and hashes a picture; it comes to its end here unless there are views that are wanted and lacking.
    fn read_one(&self, work: Work) -> Result<ReadPicture, Processed> {
        let start = Instant::now();
        let Work {
            index,
            source,
            random_views,
        } = work;
        let _span = self.span("read and hash").with("picture", index);
        let (stamp, bytes) = read(source, &self.plan.limits);
        let mut subject = Subject {
            index,
            stamp,
            content: None,
        };
        let (bytes, room) = match bytes {
            Ok(read) => read,
            Err(error) => return Err(subject.came_to(Outcome::Failed(error))),
        };
        let content = *blake3::hash(&bytes).as_bytes();
        subject.content = Some(content);
        add_elapsed(&self.disk_ns, start);
        let asked = Asked {
            index,
            content: &content,
            random_views,
        };
        match self.claim(&asked) {
            Ok(views) => Ok(ReadPicture {
                subject,
                bytes,
                _room: room,
                views,
            }),
            Err(outcome) => Err(subject.came_to(outcome)),
        }
    }

    /// The views of a picture that are to be computed, if any, by whoever asks.
    fn claim(&self, asked: &Asked<'_>) -> Result<Vec<View>, Outcome> {
        let mut plain_too = true;
        if self.plan.deduplicate {
            let half = *asked.content.first_chunk().expect("32 bytes hold 16");
            match self.claimed.lock().unwrap_or_else(PoisonError::into_inner).entry(half) {
                Entry::Vacant(place) => {
                    place.insert(asked.random_views);
                }
                // It came before as a picture of which no random view was wanted: these are what is left to do.
                Entry::Occupied(mut claimed) if asked.random_views && !claimed.get() => {
                    claimed.insert(true);
                    plain_too = false;
                }
                Entry::Occupied(_) => return Err(Outcome::Repeated),
            }
        }
        let mut views = match (self.plan.lacking)(asked) {
            Lacking::Nothing(completeness) => return Err(Outcome::Known(completeness)),
            Lacking::Views(views) => views,
        };
        views.retain(|view| plain_too || *view != View::Plain);
        if views.is_empty() {
            return Err(Outcome::Repeated);
        }
        Ok(views)
    }

    /// Decodes a picture and puts the tensor of each view with those that wait; a batch that becomes full meanwhile is run.
    /// False when the run is at its end.
    ///
    /// The picture keeps its room meanwhile: inference never waits for any.
    fn decode_and_put(
        &self,
        picture: ReadPicture,
        role: Role,
        session: &mut Option<Session>,
        results: &Results,
    ) -> bool {
        let ReadPicture {
            subject, bytes, views, ..
        } = &picture;
        let start = Instant::now();
        let decoded = {
            let _span = self.span("decode").with("picture", subject.index);
            self.plan.transform.decode(bytes, &self.plan.limits, wanted(views))
        };
        add_elapsed(&self.decode_ns, start);
        let decoded = match decoded {
            Ok(decoded) => decoded,
            Err(error) => {
                self.backlog.leave_out();
                let processed = subject.came_to(Outcome::Failed(error));
                return results.send(Ok(Told::Ended(processed))).is_ok();
            }
        };
        for (number, view) in views.iter().enumerate() {
            if number > 0 && self.stopped() {
                self.left_out.store(true, Ordering::Relaxed);
                return false;
            }
            let seen = Seen {
                subject: *subject,
                completeness: decoded.completeness,
                view: *view,
                following: views.len() - number - 1,
                of: views.len(),
            };
            let values = self.tensor(&decoded, subject, *view);
            let put = {
                let _wait = self.wait("wait until there is room for a tensor");
                self.backlog.put(Tensor { seen, values }, role)
            };
            if !put {
                return false;
            }
            if seen.following > 0
                && let Some(batch) = self.backlog.full_batch(role)
                && !self.infer_and_tell(session, batch, results)
            {
                return false;
            }
        }
        true
    }

    fn tensor(&self, picture: &Decoded, subject: &Subject, view: View) -> Vec<f32> {
        let _span = self.span("resize and normalise").with("picture", subject.index);
        let start = Instant::now();
        let random = match view {
            View::Plain => None,
            View::Random(view) => {
                let content = subject.content.expect("a decoded picture was read");
                Some(RandomCrop::of(
                    view.seed(),
                    view.number(),
                    &content,
                    picture.dimensions(),
                ))
            }
        };
        let values = self.plan.transform.tensor(picture, random.as_ref());
        add_elapsed(&self.decode_ns, start);
        values
    }

    /// Runs a batch, with the thread's session, which is opened if it has none. False when the run is at its end.
    fn infer_and_tell(&self, session: &mut Option<Session>, batch: Vec<Tensor>, results: &Results) -> bool {
        let session = match session {
            Some(session) => session,
            None => match self.engine.take(self.sessions) {
                Ok(opened) => {
                    self.inferring.fetch_add(1, Ordering::Relaxed);
                    session.insert(opened)
                }
                Err(error) => {
                    self.fail(error, results);
                    return false;
                }
            },
        };
        let features = match self.infer(session, &batch) {
            Ok(features) => features,
            Err(error) => {
                self.fail(error, results);
                return false;
            }
        };
        let told = batch
            .into_iter()
            .zip(features)
            .map(|(tensor, feature)| Told::Feature(tensor.seen, feature));
        let _wait = self.wait("wait until results are collected");
        told.map(Ok).all(|told| results.send(told).is_ok())
    }

    fn infer(&self, session: &mut Session, batch: &[Tensor]) -> Result<Vec<Result<Vec<f32>, PictureError>>> {
        let _span = self.span("infer").with("batch", batch.len());
        let start = Instant::now();
        let mut input = Vec::with_capacity(batch.len() * self.plan.transform.tensor_len());
        for tensor in batch {
            input.extend_from_slice(&tensor.values);
        }
        let features = session.run(&input, batch.len())?;
        add_elapsed(&self.inference_ns, start);
        let checked = |feature: &[f32]| {
            if feature.iter().all(|value| value.is_finite()) {
                return Ok(feature.to_vec());
            }
            let detail = "the backbone gives features that are infinite or not a number";
            Err(PictureError::new(Reason::Unsupported, detail))
        };
        Ok(features
            .chunks_exact(features.len() / batch.len())
            .map(checked)
            .collect())
    }
}

/// What a picture is decoded for.
fn wanted(views: &[View]) -> Wanted {
    let is_plain = |view: &View| *view == View::Plain;
    match (views.iter().any(is_plain), views.iter().all(is_plain)) {
        (_, true) => Wanted::Plain,
        (true, false) => Wanted::PlainAndRandom,
        (false, false) => Wanted::Random,
    }
}

fn add_elapsed(total: &AtomicU64, start: Instant) {
    total.fetch_add(
        u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        Ordering::Relaxed,
    );
}
