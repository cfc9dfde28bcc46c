//! What it means for a terminal to be raw (termios(3)).

use rustix::termios::{InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios};

/// `modes` with nothing between the keyboard and the reader.
pub(super) fn raw(modes: &Termios) -> Termios {
    let mut raw = modes.clone();
    raw.input_modes &= !(InputModes::IGNBRK
        | InputModes::BRKINT
        | InputModes::PARMRK
        | InputModes::ISTRIP
        | InputModes::INLCR
        | InputModes::IGNCR
        | InputModes::ICRNL
        | InputModes::IXON);
    raw.local_modes &=
        !(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
    raw.output_modes |= OutputModes::OPOST;
    raw.special_codes[SpecialCodeIndex::VMIN] = 1;
    raw.special_codes[SpecialCodeIndex::VTIME] = 0;
    raw
}

/// Whether `now` is what [`raw`] makes of `before`.
pub(super) fn is_raw(now: &Termios, before: &Termios) -> bool {
    let raw = raw(before);
    now.local_modes == raw.local_modes && now.input_modes == raw.input_modes && now.output_modes == raw.output_modes
}
