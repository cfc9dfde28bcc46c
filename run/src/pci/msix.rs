//! MSI-X (PCI 3.0, 6.8.2): the table that the guest fills, and the interrupts that go by it.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::hv::{MsiLine, MsiLines, MsiMessage};

/// Capability id.
pub const CAPABILITY_ID: u8 = 0x11;
/// Bytes of the capability after identifier and link.
const CAPABILITY_BODY_BYTES: usize = 10;
/// Most vectors of a function: the table then fits one page. The specification allows 2048.
pub const MAX_VECTORS: u16 = 256;

const ENTRY_BYTES: usize = 16;
/// Offset of vector control within an entry; its bit 0 masks the vector.
const VECTOR_CONTROL: usize = 12;
/// Message control: the function as a whole is masked.
const FUNCTION_MASK: u16 = 1 << 14;
/// Message control: MSI-X is on.
const ENABLE: u16 = 1 << 15;

/// The MSI-X interrupts of one function. Any thread may fire them.
pub struct Msix {
    lines: Arc<dyn MsiLines>,
    state: Mutex<State>,
}

struct State {
    control: u16,
    table: Vec<u8>,
    vectors: Vec<Vector>,
}

struct Vector {
    line: MsiLine,
    /// What the hypervisor was told last. Stays while the vector is masked, since only we fire the line.
    connected: Option<MsiMessage>,
    pending: bool,
}

impl fmt::Debug for Msix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Msix").field("control", &self.state().control).finish_non_exhaustive()
    }
}

impl Msix {
    /// `count` vectors, at most [`MAX_VECTORS`], all masked.
    pub fn new(lines: Arc<dyn MsiLines>, count: u16) -> io::Result<Self> {
        let count = count.clamp(1, MAX_VECTORS);
        let vector = |_| Ok(Vector { line: lines.allocate()?, connected: None, pending: false });
        let vectors: Vec<_> = (0..count).map(vector).collect::<io::Result<_>>()?;
        let mut table = vec![0; vectors.len() * ENTRY_BYTES];
        for entry in table.chunks_exact_mut(ENTRY_BYTES) {
            entry.iter_mut().skip(VECTOR_CONTROL).take(1).for_each(|control| *control = 1);
        }
        Ok(Self { lines, state: Mutex::new(State { control: 0, table, vectors }) })
    }

    /// Number of vectors.
    #[must_use]
    pub fn count(&self) -> u16 {
        u16::try_from(self.state().vectors.len()).unwrap_or(MAX_VECTORS)
    }

    /// The capability's bytes after identifier and link, for a table and pending bits in BAR `bar` at these offsets.
    #[must_use]
    pub fn capability(&self, bar: u8, table_offset: u32, pending_offset: u32) -> [u8; CAPABILITY_BODY_BYTES] {
        let mut body = [0; CAPABILITY_BODY_BYTES];
        let control = (self.count() - 1).to_le_bytes();
        let table = (table_offset | u32::from(bar)).to_le_bytes();
        let pending = (pending_offset | u32::from(bar)).to_le_bytes();
        for (to, from) in body.iter_mut().zip(control.iter().chain(&table).chain(&pending)) {
            *to = *from;
        }
        body
    }

    /// Bits of the capability's body that the guest may write.
    pub const WRITABLE: [u8; 2] = (ENABLE | FUNCTION_MASK).to_le_bytes();

    /// The guest wrote message control.
    pub fn set_control(&self, control: u16) {
        let mut state = self.state();
        if state.control != control & (ENABLE | FUNCTION_MASK) {
            state.control = control & (ENABLE | FUNCTION_MASK);
            self.update(&mut state);
        }
    }

    /// The guest reads the table.
    pub fn read_table(&self, offset: u64, data: &mut [u8]) {
        let state = self.state();
        let Ok(offset) = usize::try_from(offset) else { return };
        for (to, from) in data.iter_mut().zip(state.table.iter().skip(offset)) {
            *to = *from;
        }
    }

    /// The guest writes the table.
    pub fn write_table(&self, offset: u64, data: &[u8]) {
        let mut state = self.state();
        let Ok(offset) = usize::try_from(offset) else { return };
        for (at, (to, from)) in state.table.iter_mut().enumerate().skip(offset).zip(data).map(|((a, t), f)| (a, (t, f)))
        {
            // Of vector control only the mask bit exists.
            *to = match at % ENTRY_BYTES {
                VECTOR_CONTROL => *from & 1,
                13.. => 0,
                _ => *from,
            };
        }
        self.update(&mut state);
    }

    /// The guest reads the pending bits.
    pub fn read_pending(&self, offset: u64, data: &mut [u8]) {
        let state = self.state();
        let Ok(offset) = usize::try_from(offset) else { return };
        let bytes = state.vectors.chunks(8).map(|eight| {
            eight.iter().enumerate().fold(0, |byte, (bit, vector)| byte | u8::from(vector.pending) << bit)
        });
        for (to, from) in data.iter_mut().zip(bytes.chain(std::iter::repeat(0)).skip(offset)) {
            *to = from;
        }
    }

    /// Fires a vector: at once, or when the guest unmasks it. Nothing happens while MSI-X is off.
    pub fn fire(&self, vector: u16) {
        let mut state = self.state();
        let vector = usize::from(vector);
        if state.control & ENABLE == 0 {
            return;
        }
        let message = state.wanted(vector);
        let Some(vector) = state.vectors.get_mut(vector) else { return };
        match message {
            Some(message) if vector.connected == Some(message) => signal(&vector.line),
            // Masked, or the hypervisor could not connect it: the bit tells, and the next change tries again.
            _ => vector.pending = true,
        }
    }

    /// Tells the hypervisor of all changed vectors at once, and fires what was pending and is masked no longer.
    fn update(&self, state: &mut State) {
        let wanted: Vec<_> = (0..state.vectors.len()).map(|vector| state.wanted(vector)).collect();
        let changes: Vec<_> = (state.vectors.iter().zip(&wanted))
            .filter(|(vector, message)| message.is_some() && vector.connected != **message)
            .map(|(vector, message)| (&vector.line, *message))
            .collect();
        let connected = changes.is_empty() || self.lines.connect(&changes).is_ok();
        for (vector, message) in state.vectors.iter_mut().zip(wanted) {
            let Some(message) = message else { continue };
            if connected {
                vector.connected = Some(message);
            }
            if vector.connected == Some(message) && std::mem::take(&mut vector.pending) {
                signal(&vector.line);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The message of a vector that may fire now.
    fn wanted(&self, vector: usize) -> Option<MsiMessage> {
        if self.control & (ENABLE | FUNCTION_MASK) != ENABLE {
            return None;
        }
        let entry: &[u8; ENTRY_BYTES] = self.table.chunks_exact(ENTRY_BYTES).nth(vector)?.try_into().ok()?;
        let [a0, a1, a2, a3, a4, a5, a6, a7, d0, d1, d2, d3, control, ..] = *entry;
        (control & 1 == 0).then_some(MsiMessage {
            address: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            data: u32::from_le_bytes([d0, d1, d2, d3]),
        })
    }
}

fn signal(line: &MsiLine) {
    // The one failure is a full counter, and then the interrupt is on its way already.
    let _ = line.event.write(1);
}
