//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// A sum on its way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checksum {
    /// Of words in this machine's order of bytes: the sum comes out the same (section 2 (B)), and none has to be turned.
    sum: u64,
    /// The next byte is the second half of a word.
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
        sum.add(&[0, protocol]);
        sum.add(&(len_bytes as u64).to_be_bytes());
        sum
    }

    /// Adds what comes next.
    pub fn add(&mut self, mut bytes: &[u8]) {
        if self.is_odd
            && let Some((second, rest)) = bytes.split_first()
        {
            self.sum += u64::from(u16::from_ne_bytes([0, *second]));
            self.is_odd = false;
            bytes = rest;
        }
        let (fours, rest) = bytes.as_chunks::<8>();
        // Four words at once: what the sums have beyond sixteen bits is folded at the end.
        let (mut low, mut high) = (0, 0);
        for four in fours {
            let four = u64::from_ne_bytes(*four);
            low += four & 0xffff_ffff;
            high += four >> 32;
        }
        self.sum += low + high;
        let (words, rest) = rest.as_chunks::<2>();
        for word in words {
            self.sum += u64::from(u16::from_ne_bytes(*word));
        }
        if let [first] = rest {
            self.sum += u64::from(u16::from_ne_bytes([*first, 0]));
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
        u16::from_be(u16::try_from(sum).unwrap_or(u16::MAX))
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
