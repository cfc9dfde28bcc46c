//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// A sum on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum {
    sum: u64,
    /// The next byte is the lower half of a word.
    is_odd: bool,
}

impl Checksum {
    /// The sum of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1) of a segment of `len_bytes`.
    pub fn of_pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, len_bytes: usize) -> Self {
        let mut sum = Self::default();
        for address in [source, destination] {
            match address {
                IpAddr::V4(address) => sum.add(&address.octets()),
                IpAddr::V6(address) => sum.add(&address.octets()),
            }
        }
        sum.sum += u64::from(protocol) + len_bytes as u64;
        sum
    }

    /// Adds what comes next.
    pub fn add(&mut self, mut bytes: &[u8]) {
        if self.is_odd
            && let Some((low, rest)) = bytes.split_first()
        {
            self.sum += u64::from(*low);
            self.is_odd = false;
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<4>();
        for word in words {
            // Two words at once: the sum of both halves is folded at the end.
            self.sum += u64::from(u32::from_be_bytes(*word));
        }
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            self.sum += u64::from(u16::from_be_bytes(*word));
        }
        if let [high] = rest {
            self.sum += u64::from(*high) << 8;
            self.is_odd = true;
        }
    }

    /// The sum so far, folded to sixteen bits but not complemented: what stands in the field of a segment whose checksum
    /// somebody else will complete.
    pub fn partial(self) -> u16 {
        let mut sum = self.sum;
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        // At most 0xffff by now.
        u16::try_from(sum).unwrap_or(u16::MAX)
    }

    /// The checksum.
    pub fn finish(self) -> u16 {
        !self.partial()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_rfc_comes_out_however_it_is_cut() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        for cut in 0..=bytes.len() {
            for second in cut..=bytes.len() {
                let mut sum = Checksum::default();
                sum.add(&bytes[..cut]);
                sum.add(&bytes[cut..second]);
                sum.add(&bytes[second..]);
                assert_eq!(sum.partial(), 0xddf2, "{cut} {second}");
                assert_eq!(sum.finish(), 0x220d);
            }
        }
    }
}
