//! The driver's commands (5.1.6.5). There is one: which frames it takes from now on.

use super::spec::{command, feature};
use crate::{
    mem::{
        GuestMemory,
        transfer::{copy_from_guest, copy_to_guest, part, total_len},
    },
    virtio::{Chain, Misuse, Ring, Signal},
};

/// Commands that are done before frames have their turn.
const COMMANDS_A_TURN: u32 = 16;

/// The queue of commands.
pub(super) struct ControlQueue {
    ring: Ring,
    chain: Chain,
    /// Features that were agreed on.
    agreed: u64,
}

impl ControlQueue {
    pub(super) fn new(ring: Ring, agreed: u64) -> Self {
        Self { ring, chain: Chain::default(), agreed }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Does what the driver asks for: gives `set` the offloads that count from now on.
    pub(super) fn serve(
        &mut self,
        memory: &GuestMemory,
        signal: &dyn Signal,
        mut set: impl FnMut(u64),
    ) -> Result<(), Misuse> {
        let mut done = 0;
        loop {
            while done < COMMANDS_A_TURN && self.ring.pop(memory, &mut self.chain)? {
                done += 1;
                if total_len(self.chain.writable()) == 0 {
                    return Err(self.ring.malformed(&self.chain));
                }
                let mut bytes = [0; command::BYTES];
                let len = copy_from_guest(memory, self.chain.readable(), &mut bytes);
                let offloads = offloads(bytes.get(..len).unwrap_or_default(), self.agreed);
                let answer = if offloads.is_some() { command::OK } else { command::ERROR };
                offloads.into_iter().for_each(&mut set);
                copy_to_guest(memory, &part(self.chain.writable(), 0, 1), &[answer]);
                self.ring.push(memory, self.chain.head(), 1)?;
            }
            if done == COMMANDS_A_TURN {
                self.ring.ring_again();
                break;
            }
            if !self.ring.enable_doorbell(memory)? {
                break;
            }
        }
        if done > 0 {
            self.ring.tell(memory, signal)?;
        }
        Ok(())
    }
}

/// The offloads that a command switches on, if it is one, and all of them were agreed on.
fn offloads(bytes: &[u8], agreed: u64) -> Option<u64> {
    let [command::GUEST_OFFLOADS, command::GUEST_OFFLOADS_SET, wanted @ ..] = bytes else { return None };
    let wanted = u64::from_le_bytes(*wanted.first_chunk()?);
    let may_be = if agreed & feature::CTRL_GUEST_OFFLOADS == 0 { 0 } else { agreed & feature::GUEST_OFFLOADS };
    (may_be != 0 && wanted & !may_be == 0).then_some(wanted)
}
