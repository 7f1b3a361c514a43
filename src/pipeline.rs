//! Files to features: reading, hashing, decoding and inference at the same time, in bounded memory.
//!
//! ```text
//! supply ─► decode threads ─► bounded queue ─► inference threads ─► results ─► the caller's thread
//!           read, hash,       tensors          batches              features, failures
//!           look up, decode
//! ```
//! A result carries the index of its picture through all stages, so a feature can't come to belong to another one. A
//! picture that can't be read or decoded is a result like any other.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::backbone::Session;
use crate::dataset::Stamp;
use crate::engine::Engine;
use crate::error::Result;
use crate::observer::Observer;
use crate::picture::{Completeness, Limits, PictureError, Reason, Transform};
use crate::supply::{Source, Supply, Work, read};

/// How long an inference thread waits for a batch to fill up.
const FILL_WAIT: Duration = Duration::from_millis(2);
/// Decoded pictures that may wait at least: what the cores decode while the sessions are being opened.
const SHORTEST_QUEUE: usize = 32;
/// How often the caller's thread gets its turn when no result comes.
const TICK: Duration = Duration::from_millis(200);

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
    /// The caller has the feature of this content.
    Known(Completeness),
    /// The same content came from another path of this run.
    Repeated,
    /// The feature, `[dim]`.
    Feature(Vec<f32>, Completeness),
    /// There is no feature.
    Failed(PictureError),
}

/// What the pipeline looks at before it decodes.
pub(crate) struct Plan<'a> {
    pub(crate) supply: &'a dyn Supply,
    pub(crate) transform: &'a Transform,
    pub(crate) limits: Limits,
    /// Whether the caller has the feature of a content already, and of how much of the picture.
    pub(crate) known: &'a (dyn Fn(&[u8; 32]) -> Option<Completeness> + Sync),
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

struct Decoded {
    index: usize,
    stamp: Stamp,
    content: [u8; 32],
    tensor: Vec<f32>,
    completeness: Completeness,
}

/// What the decode stage makes of one picture: a tensor that goes on, or an outcome already.
struct Looked {
    stamp: Stamp,
    content: Option<[u8; 32]>,
    tensor: Result<(Vec<f32>, Completeness), Outcome>,
}

/// What the threads of one run share.
struct Shared<'a> {
    plan: &'a Plan<'a>,
    engine: &'a Engine<'a>,
    observer: &'a dyn Observer,
    /// Whether the supply came to its end.
    exhausted: AtomicBool,
    stop: AtomicBool,
    /// Pictures that inference threads have taken.
    taken: AtomicUsize,
    /// Inference threads that have a session.
    sessions: AtomicUsize,
    /// First halves of the contents that were seen; the caller tells whole ones apart.
    claimed: Mutex<HashSet<[u8; 16]>>,
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
    let workers = engine.workers(count);
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
    let (tensors, queue) = sync_channel::<Decoded>((engine.batch_size() * workers * 2).max(SHORTEST_QUEUE));
    let (results, collected) = sync_channel::<Result<Processed>>(256);
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

fn collect(
    collected: &Receiver<Result<Processed>>,
    sink: &mut dyn FnMut(Option<Processed>) -> Result<()>,
) -> Result<()> {
    loop {
        match collected.recv_timeout(TICK) {
            Ok(result) => sink(Some(result?))?,
            Err(RecvTimeoutError::Timeout) => sink(None)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}

impl Shared<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.observer.interrupted()
    }

    fn decode_all(&self, tensors: &SyncSender<Decoded>, results: &SyncSender<Result<Processed>>) {
        while !self.stopped() {
            let Work { index, source } = match self.plan.supply.next() {
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
            let Looked { stamp, content, tensor } = self.decode_one(source);
            let sent = match tensor {
                Ok((tensor, completeness)) => {
                    let decoded = Decoded {
                        index,
                        stamp,
                        content: content.expect("a decoded picture was read"),
                        tensor,
                        completeness,
                    };
                    tensors.send(decoded).is_ok()
                }
                Err(outcome) => {
                    let processed = Processed {
                        index,
                        stamp,
                        content,
                        outcome,
                    };
                    results.send(Ok(processed)).is_ok()
                }
            };
            if !sent {
                return;
            }
        }
    }

    fn decode_one(&self, source: Source) -> Looked {
        let start = Instant::now();
        let (stamp, bytes) = read(source, &self.plan.limits);
        let looked = |content, tensor| Looked { stamp, content, tensor };
        let (bytes, _room) = match bytes {
            Ok(read) => read,
            Err(error) => return looked(None, Err(Outcome::Failed(error))),
        };
        let content = *blake3::hash(&bytes).as_bytes();
        add_elapsed(&self.disk_ns, start);
        if self.plan.deduplicate
            && !self
                .claimed
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .insert(*content.first_chunk().expect("32 bytes hold 16"))
        {
            return looked(Some(content), Err(Outcome::Repeated));
        }
        if let Some(completeness) = (self.plan.known)(&content) {
            return looked(Some(content), Err(Outcome::Known(completeness)));
        }
        let start = Instant::now();
        let mut tensor = vec![0.0; self.plan.transform.tensor_len()];
        let loaded = self.plan.transform.load(&bytes, &self.plan.limits, &mut tensor);
        add_elapsed(&self.decode_ns, start);
        let tensor = loaded
            .map(|completeness| (tensor, completeness))
            .map_err(Outcome::Failed);
        looked(Some(content), tensor)
    }

    /// As [`Shared::infer_batches`]; however that ends, nobody waits for ever for room in the queue.
    fn infer_all(
        &self,
        queue: &Mutex<Receiver<Decoded>>,
        workers: usize,
        results: &SyncSender<Result<Processed>>,
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
        queue: &Mutex<Receiver<Decoded>>,
        workers: usize,
        results: &SyncSender<Result<Processed>>,
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
            let outcomes = match self.infer(&mut session, &batch) {
                Ok(outcomes) => outcomes,
                Err(error) => return fail(error),
            };
            for (decoded, outcome) in batch.into_iter().zip(outcomes) {
                let Decoded {
                    index, stamp, content, ..
                } = decoded;
                let processed = Processed {
                    index,
                    stamp,
                    content: Some(content),
                    outcome,
                };
                if results.send(Ok(processed)).is_err() {
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
    fn fill_batch(&self, queue: &Mutex<Receiver<Decoded>>, first: Decoded, workers: usize) -> Vec<Decoded> {
        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
        let count = self.plan.supply.count().unwrap_or(usize::MAX);
        let left = count.saturating_sub(self.taken.load(Ordering::Relaxed));
        let size = self.engine.batch_size().min(left.div_ceil(workers)).max(1);
        let mut batch = vec![first];
        while batch.len() < size {
            match queue.recv_timeout(FILL_WAIT) {
                Ok(decoded) => batch.push(decoded),
                Err(_) => break,
            }
        }
        self.taken.fetch_add(batch.len(), Ordering::Relaxed);
        batch
    }

    fn infer(&self, session: &mut Session, batch: &[Decoded]) -> Result<Vec<Outcome>> {
        let start = Instant::now();
        let mut input = Vec::with_capacity(batch.len() * self.plan.transform.tensor_len());
        for decoded in batch {
            input.extend_from_slice(&decoded.tensor);
        }
        let features = session.run(&input, batch.len())?;
        add_elapsed(&self.inference_ns, start);
        let outcome = |(feature, decoded): (&[f32], &Decoded)| {
            if feature.iter().all(|value| value.is_finite()) {
                return Outcome::Feature(feature.to_vec(), decoded.completeness);
            }
            let detail = "the backbone gives features that are infinite or not a number";
            Outcome::Failed(PictureError::new(Reason::Unsupported, detail))
        };
        Ok(features
            .chunks_exact(features.len() / batch.len())
            .zip(batch)
            .map(outcome)
            .collect())
    }
}

fn receive(queue: &Mutex<Receiver<Decoded>>) -> Option<Decoded> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

fn add_elapsed(total: &AtomicU64, start: Instant) {
    total.fetch_add(
        u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX),
        Ordering::Relaxed,
    );
}
