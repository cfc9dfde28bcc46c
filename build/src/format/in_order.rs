//! Work that several threads do, of which the results are taken in the order that it was given: so no byte depends on
//! how many there are.

use std::collections::VecDeque;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::Threads;

/// Jobs on the way, for each thread: one in work, one waiting, one done.
const JOBS_A_THREAD: usize = 3;

/// Does `jobs` on `threads` threads, each of which asks `worker` for its hands, and gives `take` the results in order.
/// The first error of `take` ends it all.
pub(super) fn in_order<Job, Done, Hands, E>(
    threads: Threads,
    jobs: impl IntoIterator<Item = Job>,
    worker: impl Fn() -> Hands + Sync,
    mut take: impl FnMut(Done) -> Result<(), E>,
) -> Result<(), E>
where
    Job: Send,
    Done: Send,
    Hands: FnMut(Job) -> Done,
    E: From<io::Error>,
{
    let limit = threads.count() * JOBS_A_THREAD;
    // A job is sent only when there is room, so sending never waits.
    let (work, to_do) = sync_channel::<(Job, SyncSender<Done>)>(limit);
    let to_do = &Mutex::new(to_do);
    let worker = &worker;
    thread::scope(move |scope| {
        for _ in 0..threads.count() {
            scope.spawn(move || do_all(to_do, worker()));
        }
        let mut under_way = VecDeque::with_capacity(limit);
        let mut jobs = jobs.into_iter();
        loop {
            while under_way.len() < limit
                && let Some(job) = jobs.next()
            {
                let (done, result) = sync_channel(1);
                work.send((job, done)).map_err(|_| ended())?;
                under_way.push_back(result);
            }
            match under_way.pop_front() {
                Some(result) => take(result.recv().map_err(|_| ended())?)?,
                None => return Ok(()),
            }
        }
    })
}

fn do_all<Job, Done>(to_do: &Mutex<Receiver<(Job, SyncSender<Done>)>>, mut hands: impl FnMut(Job) -> Done) {
    loop {
        let next = to_do.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((job, done)) = next else { return };
        // Nobody waits for it any more when the other end failed.
        if done.send(hands(job)).is_err() {
            return;
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("a packing thread ended")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_whoever_takes_ends_all_threads() {
        let mut seen = 0;
        let result = in_order(
            Threads::new(3),
            0..,
            || |job: u64| job,
            |done| {
                seen += 1;
                if done == 100 { Err(io::Error::from(io::ErrorKind::StorageFull)) } else { Ok(()) }
            },
        );
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(seen, 101);
    }

    #[test]
    fn results_come_in_order_however_long_each_takes() {
        for threads in [1, 2, 7] {
            let mut seen = Vec::new();
            let uneven = |job: u64| {
                let mut hash = job;
                (0..(job % 5) * 20_000).for_each(|round| hash = hash.rotate_left(3) ^ round);
                (job, std::hint::black_box(hash))
            };
            let take = |(job, _)| {
                seen.push(job);
                Ok::<_, io::Error>(())
            };
            in_order(Threads::new(threads), 0..200, || uneven, take).unwrap();
            assert!(seen.into_iter().eq(0..200), "{threads} threads");
        }
    }
}
