//! Numbers as ECMA-119 7.2.3 and 7.3.3 write them: little-endian, then again big-endian.

pub(super) fn both16(number: u16) -> [u8; 4] {
    let [[a, b], [c, d]] = [number.to_le_bytes(), number.to_be_bytes()];
    [a, b, c, d]
}

pub(super) fn both32(number: u32) -> [u8; 8] {
    let [[a, b, c, d], [e, f, g, h]] = [number.to_le_bytes(), number.to_be_bytes()];
    [a, b, c, d, e, f, g, h]
}
