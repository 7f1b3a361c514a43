//! What waits between the stages, and what a thread is to do next.
//!
//! Readers offer pictures as they come from the disk. Workers take tasks: a batch of tensors as soon as there is a full one,
//! else a picture to decode. So as many threads as there are cores keep all of them busy, and none waits for a slower
//! neighbour. Where the backbone runs on a GPU, one thread takes batches and the others decode.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{ReadPicture, Tensor};

/// How long a worker that has nothing to decode waits for a batch to fill up.
const FILL_WAIT: Duration = Duration::from_millis(2);

/// What a thread can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It decodes, and runs batches once [`Backlog::let_workers_infer`] was called.
    Worker,
    /// It decodes only.
    Decoder,
    /// It runs batches only, once [`Backlog::let_workers_infer`] was called.
    Runner,
    /// It runs batches only, on a device that does nothing else.
    Device,
}

impl Role {
    fn infers(self, state: &State) -> bool {
        match self {
            Self::Worker | Self::Runner => state.workers_infer,
            Self::Decoder => false,
            Self::Device => true,
        }
    }
}

/// What a thread is to do next.
#[derive(Debug)]
pub(super) enum Task {
    Decode(Box<ReadPicture>),
    Infer(Vec<Tensor>),
}

/// Sizes that do not change during a run, but once: when the backbone turns out to run on a GPU.
#[derive(Debug, Clone, Copy)]
pub(super) struct Capacity {
    /// Pictures that may wait to be decoded.
    pub(super) pictures: usize,
    /// Tensors that may wait for inference, while nobody can run them.
    pub(super) tensors: usize,
    /// Tensors in a full batch.
    pub(super) batch: usize,
    /// Threads that run batches at the same time.
    pub(super) sessions: usize,
}

#[derive(Debug)]
struct State {
    capacity: Capacity,
    pictures: VecDeque<Box<ReadPicture>>,
    tensors: VecDeque<Tensor>,
    /// Threads that may still offer pictures.
    readers: usize,
    /// Pictures that are being decoded.
    decoding: usize,
    /// Whether a picture was ever offered.
    begun: bool,
    workers_infer: bool,
    /// Tensors of pictures of which all were taken.
    taken: usize,
    closed: bool,
}

/// The two queues.
pub(super) struct Backlog {
    state: Mutex<State>,
    changed: Condvar,
    /// Pictures of the whole run, as far as it is known.
    count: usize,
}

impl Backlog {
    /// `readers`: how many threads will each say once that they are [done](Self::reader_is_done). `count`: pictures in all,
    /// or `usize::MAX`.
    pub(super) fn new(readers: usize, count: usize, capacity: Capacity) -> Self {
        let state = State {
            capacity,
            pictures: VecDeque::new(),
            tensors: VecDeque::new(),
            readers,
            decoding: 0,
            begun: false,
            workers_infer: false,
            taken: 0,
            closed: false,
        };
        Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            count,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands over a picture to be decoded, when there is room; false when nobody takes it any more.
    pub(super) fn offer(&self, picture: ReadPicture) -> bool {
        let mut state = self.lock();
        while !state.closed && state.pictures.len() >= state.capacity.pictures {
            state = self.wait(state);
        }
        if state.closed {
            return false;
        }
        state.begun = true;
        state.pictures.push_back(Box::new(picture));
        self.changed.notify_all();
        true
    }

    /// Each reader says so once.
    pub(super) fn reader_is_done(&self) {
        self.lock().readers -= 1;
        self.changed.notify_all();
    }

    /// Waits for the first picture; false when there is none.
    pub(super) fn begins(&self) -> bool {
        let mut state = self.lock();
        while !state.begun && !state.closed && state.readers > 0 {
            state = self.wait(state);
        }
        state.begun && !state.closed
    }

    /// From now on workers run batches.
    pub(super) fn let_workers_infer(&self) {
        self.lock().workers_infer = true;
        self.changed.notify_all();
    }

    /// From now on one thread, of [`Role::Device`], runs batches of `batch` tensors while the next one fills up.
    pub(super) fn let_device_infer(&self, batch: usize) {
        let mut state = self.lock();
        state.capacity.batch = batch;
        state.capacity.tensors = state.capacity.tensors.max(2 * batch);
        state.capacity.sessions = 1;
        self.changed.notify_all();
    }

    /// The next task of a thread; `None` when there are no more.
    ///
    /// Who took a picture to decode says that it [is decoded](Self::is_decoded).
    pub(super) fn next(&self, role: Role) -> Option<Task> {
        let mut state = self.lock();
        let mut waited = false;
        loop {
            if state.closed {
                return None;
            }
            let infers = role.infers(&state);
            let all_read = state.readers == 0 && state.pictures.is_empty();
            let complete = all_read && state.decoding == 0;
            if infers && !state.tensors.is_empty() {
                // Nothing that could fill a batch will come, or it does not come soon.
                let short = complete || waited && state.pictures.is_empty();
                if let Some(batch) = self.batch(&mut state, short) {
                    return Some(Task::Infer(batch));
                }
            }
            // Who can't run batches stops when too many tensors wait.
            let decodes = matches!(role, Role::Worker | Role::Decoder)
                && (infers || state.tensors.len() < state.capacity.tensors);
            if decodes && let Some(picture) = state.pictures.pop_front() {
                state.decoding += 1;
                self.changed.notify_all();
                return Some(Task::Decode(picture));
            }
            if complete && state.tensors.is_empty() {
                return None;
            }
            if infers && !state.tensors.is_empty() {
                let result = self.changed.wait_timeout(state, FILL_WAIT);
                let (guard, timeout) = result.unwrap_or_else(PoisonError::into_inner);
                state = guard;
                waited |= timeout.timed_out();
            } else {
                state = self.wait(state);
                waited = false;
            }
        }
    }

    /// A full batch that waits, for a worker that is not done with its picture.
    pub(super) fn full_batch(&self, role: Role) -> Option<Vec<Tensor>> {
        let mut state = self.lock();
        if state.closed || !role.infers(&state) {
            return None;
        }
        self.batch(&mut state, false)
    }

    /// A batch: full, or any if a `short` one will do. Towards the end a smaller one is full, so that all threads end at the
    /// same time.
    fn batch(&self, state: &mut State, short: bool) -> Option<Vec<Tensor>> {
        let first = state.tensors.front()?;
        // As if the others had as many views.
        let left = self.count.saturating_sub(state.taken).saturating_mul(first.seen.of);
        let size = state.capacity.batch.min(left.div_ceil(state.capacity.sessions)).max(1);
        if state.tensors.len() < size && !short {
            return None;
        }
        let size = size.min(state.tensors.len());
        let batch: Vec<Tensor> = state.tensors.drain(..size).collect();
        state.taken += batch.iter().filter(|tensor| tensor.seen.following == 0).count();
        self.changed.notify_all();
        Some(batch)
    }

    /// Puts a tensor with those that wait, when there is room or the thread can make some; false when nobody takes it any
    /// more.
    pub(super) fn put(&self, tensor: Tensor, role: Role) -> bool {
        let mut state = self.lock();
        while !state.closed && !role.infers(&state) && state.tensors.len() >= state.capacity.tensors {
            state = self.wait(state);
        }
        if state.closed {
            return false;
        }
        state.tensors.push_back(tensor);
        self.changed.notify_all();
        true
    }

    /// The tensors of a picture that was taken are all there.
    pub(super) fn is_decoded(&self) {
        self.lock().decoding -= 1;
        self.changed.notify_all();
    }

    /// A picture that will never come to a batch: what is left is divided without it.
    pub(super) fn leave_out(&self) {
        self.lock().taken += 1;
    }

    /// How many pictures and tensors wait now.
    pub(super) fn lengths(&self) -> (usize, usize) {
        let state = self.lock();
        (state.pictures.len(), state.tensors.len())
    }

    /// Ends the run: nobody waits any more, and what waits is dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.pictures.clear();
        state.tensors.clear();
        self.changed.notify_all();
    }
}

#[cfg(test)]
#[path = "backlog_tests.rs"]
mod tests;
