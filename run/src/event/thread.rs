//! A thread that serves many handlers.

use std::{
    collections::BTreeMap,
    io,
    os::fd::RawFd,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{SyncSender, sync_channel},
    },
    thread::{Builder, JoinHandle},
};

use vmm_sys_util::epoll::{Epoll, EpollEvent};

use super::{
    EventHandler, Flag,
    interest::{EVENTS_AT_ONCE, Interest, parts, wait},
};

/// The number of a handler on its thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct HandlerId(u32);

/// Owns a thread that serves handlers. Dropping it ends the thread, and drops all handlers on it, before it returns.
#[derive(Debug)]
pub struct EventThread {
    events: Events,
    thread: Option<JoinHandle<()>>,
}

/// Adds handlers to an [`EventThread`] and removes them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Events {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    inbox: Mutex<Inbox>,
    wake: Flag,
}

#[derive(Debug, Default)]
struct Inbox {
    requests: Vec<Request>,
    last_id: u32,
    ended: bool,
}

enum Request {
    Add {
        id: HandlerId,
        handler: Box<dyn EventHandler>,
        reply: SyncSender<io::Result<()>>,
    },
    /// The reply is the drop of the sender.
    Remove {
        id: HandlerId,
        _reply: SyncSender<io::Result<()>>,
    },
    End,
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Add { .. } => "Add",
            Self::Remove { .. } => "Remove",
            Self::End => "End",
        })
    }
}

/// The handler starts after id 0, which the thread keeps for its own flag.
const WAKE: u32 = 0;

impl EventThread {
    /// Starts a thread of this name.
    pub fn start(name: &str) -> io::Result<Self> {
        let epoll = Epoll::new()?;
        let events = Events { shared: Arc::new(Shared { inbox: Mutex::default(), wake: Flag::new()? }) };
        Interest::new(&epoll, WAKE, &mut Vec::new()).watch(&events.shared.wake, 0)?;
        let shared = Arc::clone(&events.shared);
        let thread = Builder::new().name(name.into()).spawn(move || Loop::new(epoll, &shared).run())?;
        Ok(Self { events, thread: Some(thread) })
    }

    /// The way to put handlers on this thread.
    #[must_use]
    pub fn events(&self) -> Events {
        self.events.clone()
    }
}

impl Drop for EventThread {
    fn drop(&mut self) {
        self.events.send(Request::End);
        if let Some(thread) = self.thread.take() {
            // A panic of the thread is our own mistake; the panic hook has told of it.
            let _ = thread.join();
        }
    }
}

impl Events {
    /// Puts `handler` on the thread; it is served when this returns. Never call it from a handler.
    pub fn add(&self, handler: Box<dyn EventHandler>) -> io::Result<HandlerId> {
        let (reply, answer) = sync_channel(1);
        let id = {
            let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            inbox.last_id = inbox.last_id.checked_add(1).ok_or(io::ErrorKind::OutOfMemory)?;
            HandlerId(inbox.last_id)
        };
        self.send(Request::Add { id, handler, reply });
        answer.recv().map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))??;
        Ok(id)
    }

    /// Takes a handler off the thread; it is dropped when this returns. Never call it from a handler.
    pub fn remove(&self, id: HandlerId) {
        let (reply, answer) = sync_channel(1);
        self.send(Request::Remove { id, _reply: reply });
        // Ends when the thread has dropped the sender, whether it served the request or has ended before.
        let _ = answer.recv();
    }

    fn send(&self, request: Request) {
        let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        if !inbox.ended {
            inbox.requests.push(request);
            self.shared.wake.raise();
        }
    }
}

struct Entry {
    handler: Box<dyn EventHandler>,
    watched: Vec<RawFd>,
}

/// Nobody waits for a thread that has ended, even if a handler's panic ended it.
struct EndOfService<'a>(&'a Shared);

impl Drop for EndOfService<'_> {
    fn drop(&mut self) {
        let mut inbox = self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.ended = true;
        inbox.requests.clear();
    }
}

struct Loop<'a> {
    epoll: Epoll,
    shared: &'a Shared,
    handlers: BTreeMap<u32, Entry>,
}

impl<'a> Loop<'a> {
    fn new(epoll: Epoll, shared: &'a Shared) -> Self {
        Self { epoll, shared, handlers: BTreeMap::new() }
    }

    fn run(mut self) {
        // Dropped before the handlers, whatever ends the loop.
        let _end = EndOfService(self.shared);
        let mut events = [EpollEvent::default(); EVENTS_AT_ONCE];
        // Waiting fails only if the epoll descriptor is bad: our own mistake, and then nothing can be served.
        while let Ok(count) = wait(&self.epoll, &mut events) {
            let mut go_on = true;
            for event in events.iter().take(count) {
                match parts(event) {
                    (WAKE, _) => go_on &= self.serve_requests(),
                    (id, token) => self.serve_event(id, token),
                }
            }
            if !go_on {
                break;
            }
        }
    }

    /// The handler may be gone: it was removed after its event was fetched.
    fn serve_event(&mut self, id: u32, token: u32) {
        if let Some(entry) = self.handlers.get_mut(&id) {
            entry.handler.ready(token, &mut Interest::new(&self.epoll, id, &mut entry.watched));
        }
    }

    /// False when the thread is to end.
    fn serve_requests(&mut self) -> bool {
        self.shared.wake.take();
        let requests = {
            let mut inbox = self.shared.inbox.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut inbox.requests)
        };
        let mut go_on = true;
        for request in requests {
            match request {
                Request::Add { id, handler, reply } => {
                    // Nobody waits for the answer only if his thread was ended in the middle.
                    let _ = reply.send(self.add(id.0, handler));
                }
                Request::Remove { id, .. } => self.remove(id.0),
                Request::End => go_on = false,
            }
        }
        go_on
    }

    fn add(&mut self, id: u32, mut handler: Box<dyn EventHandler>) -> io::Result<()> {
        let mut watched = Vec::new();
        let mut interest = Interest::new(&self.epoll, id, &mut watched);
        if let Err(error) = handler.start(&mut interest) {
            interest.clear();
            return Err(error);
        }
        self.handlers.insert(id, Entry { handler, watched });
        Ok(())
    }

    fn remove(&mut self, id: u32) {
        if let Some(mut entry) = self.handlers.remove(&id) {
            Interest::new(&self.epoll, id, &mut entry.watched).clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    struct Teller {
        flag: Flag,
        tell: Sender<u32>,
    }

    impl EventHandler for Teller {
        fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
            interest.watch(&self.flag, 7)
        }

        fn ready(&mut self, token: u32, _interest: &mut Interest<'_>) {
            self.flag.take();
            self.tell.send(token).unwrap();
        }
    }

    struct Refuser;

    impl EventHandler for Refuser {
        fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
            interest.watch(&tempfile::tempfile().unwrap(), 0)
        }

        fn ready(&mut self, _token: u32, _interest: &mut Interest<'_>) {}
    }

    #[test]
    fn a_handler_that_cannot_start_is_refused() {
        let thread = EventThread::start("test").unwrap();
        let error = thread.events().add(Box::new(Refuser)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    }

    #[test]
    fn events_reach_their_handler_until_it_is_removed() {
        let thread = EventThread::start("test").unwrap();
        let (tell, told) = channel();
        let flag = Flag::new().unwrap();
        let id = thread.events().add(Box::new(Teller { flag: flag.try_clone().unwrap(), tell })).unwrap();
        flag.raise();
        assert_eq!(told.recv(), Ok(7));
        thread.events().remove(id);
        flag.raise();
        told.recv().expect_err("the handler was dropped with its sender");
    }

    #[test]
    fn an_ended_thread_has_dropped_its_handlers_and_takes_no_new_ones() {
        let thread = EventThread::start("test").unwrap();
        let events = thread.events();
        let (tell, told) = channel();
        let id = events.add(Box::new(Teller { flag: Flag::new().unwrap(), tell: tell.clone() })).unwrap();
        drop(thread);
        events.remove(id);
        assert_eq!(
            events.add(Box::new(Teller { flag: Flag::new().unwrap(), tell })).unwrap_err().kind(),
            io::ErrorKind::BrokenPipe
        );
        told.recv().expect_err("nobody holds a sender");
    }

    struct Panics(Flag);

    impl EventHandler for Panics {
        fn start(&mut self, interest: &mut Interest<'_>) -> io::Result<()> {
            interest.watch(&self.0, 0)
        }

        fn ready(&mut self, _token: u32, _interest: &mut Interest<'_>) {
            panic!("a mistake of ours");
        }
    }

    #[test]
    fn nobody_waits_for_a_thread_that_a_panic_has_ended() {
        let thread = EventThread::start("test").unwrap();
        let events = thread.events();
        let flag = Flag::new().unwrap();
        let id = events.add(Box::new(Panics(flag.try_clone().unwrap()))).unwrap();
        flag.raise();
        events.remove(id);
        drop(thread);
        assert!(events.add(Box::new(Panics(flag))).is_err());
    }

    #[test]
    fn serving_one_handler_ends_with_its_flag() {
        let (tell, told) = channel();
        let (flag, stop) = (Flag::new().unwrap(), Flag::new().unwrap());
        let mut teller = Teller { flag: flag.try_clone().unwrap(), tell };
        let seen_stop = stop.try_clone().unwrap();
        let thread = std::thread::spawn(move || super::super::serve(&mut teller, &seen_stop));
        flag.raise();
        assert_eq!(told.recv(), Ok(7));
        stop.raise();
        thread.join().unwrap().unwrap();
    }
}
