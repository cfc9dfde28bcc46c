//! Connections that ended on our side first: the guest may not have heard our last word (TIME-WAIT, RFC 9293 section 3.6).

use std::collections::{HashMap, VecDeque};

use super::flow::Remembered;
use super::{Context, FlowKey, Millis};
use crate::wire::{Headers, Ip, Protocol, Tcp, TcpFlags, TcpOptions, Timestamps};

/// How long they are remembered. A guest is next door: what it has not sent again by then, it never will.
const TIME_WAIT_MS: Millis = 2_000;
/// How many. When one more comes, the oldest is forgotten.
const LIMIT: usize = 4_096;

/// Those that are remembered. No socket belongs to them any more.
#[derive(Debug, Default)]
pub(super) struct Past {
    by_key: HashMap<FlowKey, (Remembered, Millis)>,
    /// In the order in which they are forgotten.
    until: VecDeque<(Millis, FlowKey)>,
}

impl Past {
    pub(super) fn add(&mut self, key: FlowKey, remembered: Remembered, now: Millis) {
        self.sweep(now);
        if self.until.len() >= LIMIT {
            self.forget_first();
        }
        let until = now + TIME_WAIT_MS;
        self.by_key.insert(key, (remembered, until));
        self.until.push_back((until, key));
    }

    /// Forgets those whose time is over.
    pub(super) fn sweep(&mut self, now: Millis) {
        while self.until.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
        if self.until.is_empty() && self.until.capacity() > 0 {
            // A flood of them is no reason to hold memory.
            *self = Self::default();
        }
    }

    fn forget_first(&mut self) {
        if let Some((until, key)) = self.until.pop_front()
            && self.by_key.get(&key).is_some_and(|(_, newest)| *newest == until)
        {
            self.by_key.remove(&key);
        }
    }

    /// A new connection takes the place of one that is over.
    pub(super) fn forget(&mut self, key: FlowKey) {
        self.by_key.remove(&key);
    }

    /// Answers a segment of one that is over. False if nobody remembers it.
    pub(super) fn answer(&mut self, key: FlowKey, tcp: &Tcp, cx: &mut Context<'_>) -> bool {
        let Some((remembered, _)) = self.by_key.get(&key).copied() else { return false };
        if tcp.flags.has(TcpFlags::RST) {
            self.forget(key);
            return true;
        }
        let value = u32::try_from(cx.now & u64::from(u32::MAX)).unwrap_or(0);
        let answer = Tcp {
            source_port: key.remote.port(),
            destination_port: key.guest.port(),
            seq: remembered.next,
            ack: remembered.ack,
            flags: TcpFlags::ACK,
            window: 0,
            options: TcpOptions {
                timestamps: remembered.echo.map(|echo| Timestamps { value, echo }),
                ..TcpOptions::default()
            },
        };
        let is_old = tcp.seq.is_before(remembered.ack) || tcp.flags.has(TcpFlags::FIN);
        if is_old {
            let ip = Ip::new(key.remote.ip(), key.guest.ip(), Protocol::TCP);
            // Lost, if there is no room: the guest asks again.
            let _ = cx.port.send(Headers::tcp(cx.macs, &ip, &answer, 0), &[]);
        }
        true
    }
}
