//! Files to features: reading, hashing, decoding and inference at the same time, in bounded memory.
//!
//! ```text
//! supply ─► decode threads ─► bounded queue ─► inference threads ─► results ─► the caller's thread
//!           read, hash,       tensors          batches              features, failures
//!           look up, decode
//! ```
//! A picture is read and decoded once for all views that are wanted of it; each view is a tensor of its own in the queue, so
//! memory does not grow with them, and they come together again at the end. A tensor carries the index of its picture and its
//! view through all stages, so a feature can't come to belong to another one. A picture that can't be read or decoded is a
//! result like any other.

mod gather;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backbone::Session;
use crate::dataset::Stamp;
use crate::engine::Engine;
use crate::error::Result;
use crate::observer::Observer;
use crate::picture::{Completeness, Decoded, Limits, PictureError, RandomCrop, Reason, Transform, Wanted};
use crate::supply::{Supply, Work, read};
use crate::views::View;

use gather::{Told, collect};

/// How long an inference thread waits for a batch to fill up.
const FILL_WAIT: Duration = Duration::from_millis(2);
/// Tensors that may wait at least: what the cores decode while the sessions are being opened.
const SHORTEST_QUEUE: usize = 32;

/// What became of one picture.
#[derive(Debug)]
pub(crate) struct Processed {
    /// Its number in the supply.
    pub(crate) index: usize,
    /// The file's stamp before it was read; default where there was none.
    pub(crate) stamp: Stamp,
    /// blake3 of the bytes, where they could be read.
    pub(crate) content: Option<[u8; 32]>,
    pub(crate) outcome: Outcome,
}

#[derive(Debug)]
pub(crate) enum Outcome {
    /// The caller has all features of this content that it wants.
    Known(Completeness),
    /// The same content came from another path of this run.
    Repeated,
    /// The features that were lacking, `[dim]` each, sorted by view.
    Features(Vec<(View, Vec<f32>)>, Completeness),
    /// There is no feature.
    Failed(PictureError),
}

/// What the caller is asked about a picture that was read.
pub(crate) struct Asked<'a> {
    /// Its number in the supply.
    pub(crate) index: usize,
    pub(crate) content: &'a [u8; 32],
    /// [`Work::random_views`].
    pub(crate) random_views: bool,
}

/// What the caller lacks of a picture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Lacking {
    /// Nothing: it has the features of so much of the picture.
    Nothing(Completeness),
    /// Features of these views, one at least.
    Views(Vec<View>),
}

/// What the pipeline looks at before it decodes.
pub(crate) struct Plan<'a> {
    pub(crate) supply: &'a dyn Supply,
    pub(crate) transform: &'a Transform,
    pub(crate) limits: Limits,
    /// Which features of a picture the caller lacks.
    pub(crate) lacking: &'a (dyn Fn(&Asked<'_>) -> Lacking + Sync),
    /// Most views of one picture; at least 1.
    pub(crate) most_views: usize,
    /// Whether a content that occurs twice is looked at once, the others being [`Outcome::Repeated`].
    pub(crate) deduplicate: bool,
}

/// How busy the stages were, as shares of the time they had.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub struct Busy {
    /// Running the backbone.
    pub inference: f64,
    /// Decoding, resizing and normalising.
    pub decode: f64,
    /// Reading and hashing files.
    pub disk: f64,
}

impl Busy {
    /// The stage that the others waited for; `None` when nothing was done.
    #[must_use]
    pub fn bottleneck(&self) -> Option<&'static str> {
        let stages = [
            ("inference", self.inference),
            ("decode", self.decode),
            ("disk", self.disk),
        ];
        let busiest = stages.into_iter().max_by(|left, right| left.1.total_cmp(&right.1));
        busiest.filter(|(_, share)| *share > 0.0).map(|(name, _)| name)
    }
}

/// How a run of the pipeline ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended {
    pub(crate) busy: Busy,
    /// Whether the observer stopped it; the results until then were handed over.
    pub(crate) interrupted: bool,
}

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
struct Tensor {
    seen: Seen,
    values: Vec<f32>,
}

/// What the threads of one run share.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    engine: &'a Engine<'a>,
    observer: &'a dyn Observer,
    /// Whether the supply came to its end.
    exhausted: AtomicBool,
    stop: AtomicBool,
    /// Pictures that inference threads have taken with all their views.
    taken: AtomicUsize,
    /// Inference threads that have a session.
    sessions: AtomicUsize,
    /// First halves of the contents that were seen, and whether their random views were wanted; the caller tells whole ones
    /// apart.
    claimed: Mutex<HashMap<[u8; 16], bool>>,
    disk_ns: AtomicU64,
    decode_ns: AtomicU64,
    inference_ns: AtomicU64,
}

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
    let workers = engine.workers(count.saturating_mul(plan.most_views));
    let decoders = engine.threads().min(count).max(1);
    let shared = Shared {
        plan,
        engine,
        observer,
        exhausted: AtomicBool::new(false),
        stop: AtomicBool::new(false),
        taken: AtomicUsize::new(0),
        sessions: AtomicUsize::new(0),
        claimed: Mutex::default(),
        disk_ns: AtomicU64::new(0),
        decode_ns: AtomicU64::new(0),
        inference_ns: AtomicU64::new(0),
    };
    let (tensors, queue) = sync_channel::<Tensor>((engine.batch_size() * workers * 2).max(SHORTEST_QUEUE));
    let (results, collected) = sync_channel::<Result<Told>>(256);
    let queue = Mutex::new(queue);
    let start = Instant::now();
    let ended = std::thread::scope(|scope| {
        for _ in 0..decoders {
            let (shared, tensors, results) = (&shared, tensors.clone(), results.clone());
            scope.spawn(move || shared.decode_all(&tensors, &results));
        }
        {
            let (shared, queue, results) = (&shared, &queue, results.clone());
            // The first session says what device it is: only on the CPU are there more of them.
            scope.spawn(move || {
                shared.infer_all(queue, workers, &results, &|| {
                    for _ in 1..workers {
                        let results = results.clone();
                        scope.spawn(move || shared.infer_all(queue, workers, &results, &|| ()));
                    }
                });
            });
        }
        drop((tensors, results));
        // Moved in here so that a panic in the sink drops it: then nobody waits for ever to hand over a result.
        let collected = collected;
        collect(&collected, sink).inspect_err(|_| {
            // The threads end at their next step: nobody listens any more, and nothing new is begun.
            shared.stop.store(true, Ordering::Relaxed);
            while collected.recv().is_ok() {}
        })
    });
    ended?;
    let wall = start.elapsed().as_secs_f64().max(1e-9);
    let share = |spent: &AtomicU64, threads: usize| spent.load(Ordering::Relaxed) as f64 / 1e9 / wall / threads as f64;
    let busy = Busy {
        // On a GPU there is one of them, whatever the number of cores.
        inference: share(&shared.inference_ns, shared.sessions.load(Ordering::Relaxed).max(1)),
        decode: share(&shared.decode_ns, decoders),
        disk: share(&shared.disk_ns, decoders),
    };
    let interrupted = !shared.exhausted.load(Ordering::Relaxed);
    Ok(Ended { busy, interrupted })
}

impl Shared<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.observer.interrupted()
    }

    fn decode_all(&self, tensors: &SyncSender<Tensor>, results: &SyncSender<Result<Told>>) {
        while !self.stopped() {
            let work = match self.plan.supply.next() {
                Ok(Some(work)) => work,
                Ok(None) => {
                    self.exhausted.store(true, Ordering::Relaxed);
                    return;
                }
                Err(error) => {
                    // Nobody else finds more there; what was given before goes through.
                    self.stop.store(true, Ordering::Relaxed);
                    let _ = results.send(Err(error));
                    return;
                }
            };
            let (subject, decoded) = self.decode_one(work);
            let sent = match decoded {
                Ok((picture, views)) => self.send_views(subject, &picture, &views, tensors),
                Err(outcome) => results.send(Ok(Told::Ended(subject.came_to(outcome)))).is_ok(),
            };
            if !sent {
                return;
            }
        }
    }

    /// Reads a picture, and decodes it if there are views of it that are wanted and lacking; else says what it came to.
    fn decode_one(&self, work: Work) -> (Subject, Result<(Decoded, Vec<View>), Outcome>) {
        let start = Instant::now();
        let Work {
            index,
            source,
            random_views,
        } = work;
        let (stamp, bytes) = read(source, &self.plan.limits);
        let mut subject = Subject {
            index,
            stamp,
            content: None,
        };
        let (bytes, _room) = match bytes {
            Ok(read) => read,
            Err(error) => return (subject, Err(Outcome::Failed(error))),
        };
        let content = *blake3::hash(&bytes).as_bytes();
        subject.content = Some(content);
        add_elapsed(&self.disk_ns, start);
        let asked = Asked {
            index,
            content: &content,
            random_views,
        };
        let views = match self.claim(&asked) {
            Ok(views) => views,
            Err(outcome) => return (subject, Err(outcome)),
        };
        let start = Instant::now();
        let is_plain = |view: &View| *view == View::Plain;
        let wanted = match (views.iter().any(is_plain), views.iter().all(is_plain)) {
            (_, true) => Wanted::Plain,
            (true, false) => Wanted::PlainAndRandom,
            (false, false) => Wanted::Random,
        };
        let decoded = self.plan.transform.decode(&bytes, &self.plan.limits, wanted);
        add_elapsed(&self.decode_ns, start);
        let decoded = decoded.map(|picture| (picture, views)).map_err(Outcome::Failed);
        (subject, decoded)
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

    /// Sends the tensor of each view as the queue has room for it; false when nobody takes them any more.
    ///
    /// The picture keeps its room meanwhile: inference, which makes the queue's, never waits for any.
    fn send_views(&self, subject: Subject, picture: &Decoded, views: &[View], tensors: &SyncSender<Tensor>) -> bool {
        let content = subject.content.expect("a decoded picture was read");
        for (number, view) in views.iter().enumerate() {
            if number > 0 && self.stopped() {
                return false;
            }
            let start = Instant::now();
            let random = match view {
                View::Plain => None,
                View::Random(view) => Some(RandomCrop::of(
                    view.seed(),
                    view.number(),
                    &content,
                    picture.dimensions(),
                )),
            };
            let values = self.plan.transform.tensor(picture, random.as_ref());
            add_elapsed(&self.decode_ns, start);
            let seen = Seen {
                subject,
                completeness: picture.completeness,
                view: *view,
                following: views.len() - number - 1,
                of: views.len(),
            };
            if tensors.send(Tensor { seen, values }).is_err() {
                return false;
            }
        }
        true
    }

    /// As [`Shared::infer_batches`]; however that ends, nobody waits for ever for room in the queue.
    fn infer_all(
        &self,
        queue: &Mutex<Receiver<Tensor>>,
        workers: usize,
        results: &SyncSender<Result<Told>>,
        opened: &dyn Fn(),
    ) {
        let run = AssertUnwindSafe(|| self.infer_batches(queue, workers, results, opened));
        let ended = catch_unwind(run);
        if !matches!(ended, Ok(true)) {
            self.stop.store(true, Ordering::Relaxed);
            while receive(queue).is_some() {}
        }
        if let Err(panic) = ended {
            resume_unwind(panic);
        }
    }

    /// Runs batches until there are no more; calls `opened` once it has a session that can have neighbours.
    ///
    /// Returns whether it came to the end.
    fn infer_batches(
        &self,
        queue: &Mutex<Receiver<Tensor>>,
        workers: usize,
        results: &SyncSender<Result<Told>>,
        opened: &dyn Fn(),
    ) -> bool {
        let fail = |error| {
            let _ = results.send(Err(error));
            false
        };
        // The first picture opens the session; what is decoded meanwhile waits.
        let Some(first) = receive(queue) else { return true };
        let early = match self.engine.is_cpu_only() {
            Ok(early) => early,
            Err(error) => return fail(error),
        };
        if early {
            opened();
        }
        let mut session = match self.engine.take(workers) {
            Ok(session) => session,
            Err(error) => return fail(error),
        };
        self.sessions.fetch_add(1, Ordering::Relaxed);
        if !early && session.device_name() == "cpu" {
            opened();
        }
        let mut next = Some(first);
        while let Some(first) = next {
            let batch = self.fill_batch(queue, first, workers);
            let features = match self.infer(&mut session, &batch) {
                Ok(features) => features,
                Err(error) => return fail(error),
            };
            for (tensor, feature) in batch.into_iter().zip(features) {
                if results.send(Ok(Told::Feature(tensor.seen, feature))).is_err() {
                    return false;
                }
            }
            next = receive(queue);
        }
        self.engine.give_back(session);
        true
    }

    /// A batch that begins with `first`: full if the queue has enough, smaller towards the end, so that all threads end
    /// at the same time.
    fn fill_batch(&self, queue: &Mutex<Receiver<Tensor>>, first: Tensor, workers: usize) -> Vec<Tensor> {
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.plan.supply.count().unwrap_or(usize::MAX);
        let left = count.saturating_sub(self.taken.load(Ordering::Relaxed));
        // As if the others had as many views.
        let left = left.saturating_mul(first.seen.of);
        let size = self.engine.batch_size().min(left.div_ceil(workers)).max(1);
        let mut batch = vec![first];
        while batch.len() < size {
            match queue.recv_timeout(FILL_WAIT) {
                Ok(tensor) => batch.push(tensor),
                Err(_) => break,
            }
        }
        let complete = batch.iter().filter(|tensor| tensor.seen.following == 0).count();
        self.taken.fetch_add(complete, Ordering::Relaxed);
        batch
    }

    fn infer(&self, session: &mut Session, batch: &[Tensor]) -> Result<Vec<Result<Vec<f32>, PictureError>>> {
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

fn receive(queue: &Mutex<Receiver<Tensor>>) -> Option<Tensor> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn add_elapsed(total: &AtomicU64, start: Instant) {
    total.fetch_add(
        u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        Ordering::Relaxed,
    );
}
