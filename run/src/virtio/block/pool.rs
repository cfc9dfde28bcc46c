//! Threads that wait for a disk, so that those who serve its queues need not.

use std::{
    collections::VecDeque,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{Builder, JoinHandle},
};

use super::{request::Job, spec::Status};
use crate::{block::BlockBackend, event::Flag, mem::GuestMemory};

/// Most requests of one disk that wait at once.
const MAX_THREADS: usize = 16;

/// The threads of one active disk. Dropping it waits for what they are at.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

/// Hands requests to the threads.
#[derive(Clone)]
pub(super) struct Hand(Arc<Shared>);

/// Requests that the threads have done, for one queue.
pub(super) struct Finished {
    jobs: Mutex<Vec<(Job, Status)>>,
    /// Raised when there are some.
    pub flag: Flag,
}

struct Shared {
    backend: Arc<dyn BlockBackend>,
    memory: GuestMemory,
    features: u64,
    thread_name: String,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(Job, Arc<Finished>)>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    is_over: bool,
}

impl Finished {
    pub fn new() -> io::Result<Self> {
        Ok(Self { jobs: Mutex::default(), flag: Flag::new()? })
    }

    /// Takes all of them.
    pub fn take(&self) -> Vec<(Job, Status)> {
        self.flag.take();
        std::mem::take(&mut *self.jobs.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, job: Job, status: Status) {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner).push((job, status));
        self.flag.raise();
    }
}

impl Pool {
    /// No thread runs before there is something to wait for.
    pub fn new(backend: Arc<dyn BlockBackend>, memory: GuestMemory, features: u64, thread_name: String) -> Self {
        let shared = Shared { backend, memory, features, thread_name, state: Mutex::default(), wake: Condvar::new() };
        Self { shared: Arc::new(shared) }
    }

    pub fn hand(&self) -> Hand {
        Hand(Arc::clone(&self.shared))
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let threads = {
            let mut state = self.shared.state();
            state.is_over = true;
            state.waiting.clear();
            self.shared.wake.notify_all();
            std::mem::take(&mut state.threads)
        };
        for thread in threads {
            // A panic of the thread is our own mistake; the panic hook has told of it.
            let _ = thread.join();
        }
    }
}

impl Hand {
    /// Has a request done by one of the threads. Where none can be started it is done here.
    pub fn give(&self, job: Job, finished: &Arc<Finished>) {
        let shared = &self.0;
        let mut state = shared.state();
        if state.waiting.len() >= state.idle && state.threads.len() < MAX_THREADS {
            let own = Arc::clone(shared);
            match Builder::new().name(shared.thread_name.clone()).spawn(move || own.serve()) {
                Ok(thread) => state.threads.push(thread),
                Err(_) if state.threads.is_empty() => {
                    drop(state);
                    let status = job.run(shared.backend.as_ref(), &shared.memory, shared.features);
                    return finished.put(job, status);
                }
                Err(_fewer_will_do) => {}
            }
        }
        state.waiting.push_back((job, Arc::clone(finished)));
        shared.wake.notify_one();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut state = self.state();
        while !state.is_over {
            let Some((job, finished)) = state.waiting.pop_front() else {
                state.idle += 1;
                state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
                continue;
            };
            drop(state);
            let status = job.run(self.backend.as_ref(), &self.memory, self.features);
            finished.put(job, status);
            state = self.state();
        }
    }
}
