//! Extended headers (POSIX.1-2017, pax, "pax Extended Header"): `LENGTH KEY=VALUE\n` records, of which the value may hold
//! any byte.

use std::collections::BTreeMap;

use super::fault::MemberFault;

/// What extended headers say about the member behind them.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Extended {
    /// In place of the header's name.
    pub path: Option<Vec<u8>>,
    /// In place of the header's link name.
    pub link_path: Option<Vec<u8>>,
    /// In place of the header's size, in bytes.
    pub size: Option<u64>,
    /// In place of the header's owner.
    pub uid: Option<u64>,
    /// In place of the header's group.
    pub gid: Option<u64>,
    /// In place of the header's time; whole seconds, rounded down.
    pub mtime_s: Option<i64>,
    /// Extended attributes by their full name.
    pub xattrs: BTreeMap<Box<[u8]>, Box<[u8]>>,
    /// It is one of GNU's sparse formats 0.0, 0.1 or 1.0, and this long when it is filled up, if that was said.
    pub sparse_bytes: Option<u64>,
}

impl Extended {
    /// Reads the records of one extended header into `self`.
    pub fn read(&mut self, mut records: &[u8]) -> Result<(), MemberFault> {
        while !records.is_empty() {
            let (key, value, rest) = first_record(records).ok_or(MemberFault::ExtendedHeader)?;
            self.take(key, value)?;
            records = rest;
        }
        Ok(())
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), MemberFault> {
        let number = || parse::<u64>(value).ok_or(MemberFault::ExtendedHeader);
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.link_path = Some(value.to_vec()),
            b"size" => self.size = Some(number()?),
            b"uid" => self.uid = Some(number()?),
            b"gid" => self.gid = Some(number()?),
            b"mtime" => self.mtime_s = Some(seconds(value).ok_or(MemberFault::ExtendedHeader)?),
            b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_bytes = Some(number()?),
            _ => {
                if key.starts_with(b"GNU.sparse.") {
                    self.sparse_bytes.get_or_insert(0);
                } else if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.xattrs.insert(name.into(), value.into());
                }
            }
        }
        Ok(())
    }
}

/// Key, value, and what follows.
fn first_record(records: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = records.iter().take(20).position(|&byte| byte == b' ')?;
    let len: usize = parse(&records[..space])?;
    let (record, rest) = records.split_at_checked(len)?;
    let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|&byte| byte == b'=')?;
    Some((&record[..equals], &record[equals + 1..], rest))
}

/// `-12.75` is -13: rounded down, as Linux' own conversion of times does.
fn seconds(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = whole.parse().ok()?;
    if text.starts_with('-') && fraction.bytes().any(|digit| digit != b'0') {
        whole.checked_sub(1)
    } else {
        Some(whole)
    }
}

fn parse<T: std::str::FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_that_do_not_add_up_are_refused() {
        for records in [
            &b"6 a=b"[..],
            b"5 a=b\n",
            b"7 a=b\n",
            b"99999999999999999999 a=b\n",
            b"-6 a=b\n",
            b"a=b\n",
            b"4 a\n",
            b"1 a=b\n",
            b"12 size=12x\n",
            b"13 mtime=1x2\n",
        ] {
            assert!(Extended::default().read(records).is_err(), "{}", String::from_utf8_lossy(records));
        }
    }

    #[test]
    fn values_may_hold_any_byte() {
        let mut extended = Extended::default();
        extended.read(b"12 path=a\nb\n23 SCHILY.xattr.u.k=\0\n\n12 size=999\n19 mtime=-3.500000\n").unwrap();
        assert_eq!(extended.path.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(extended.xattrs.get(&b"u.k"[..]).map(|value| &value[..]), Some(&b"\0\n"[..]));
        assert_eq!((extended.size, extended.mtime_s), (Some(999), Some(-4)));
    }
}
