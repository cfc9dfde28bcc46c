//! In what order contents stand in the image: what is read first at boot, first and side by side.
//!
//! A file of lines, each a path in the root: what comes earlier stands earlier, and what is not named comes behind. Or each a
//! path and a priority, as `mksquashfs -sort` reads them: from 32767, which stands first, down to -32768; what is not
//! named has 0. A folder speaks for all in it that is not named itself. Empty lines and those with `#` in front say nothing.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;

use super::inventory::Inventory;
use crate::tree::{NodeId, PathFault, TreePath};

/// Above every priority: what is named without one.
const NAMED: i64 = 1 << 40;

/// Most lines; a tree has not so many files.
const LINE_LIMIT: usize = 4_000_000;

/// Which contents stand first.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SquashfsOrder {
    /// Higher ones stand first.
    ranks: BTreeMap<TreePath, i64>,
}

/// What is wrong with a line of an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SquashfsOrderError {
    /// The path is none.
    #[error("line {line}: `{path}` is no path in the root")]
    Path {
        /// Which line, the first of which is 1.
        line: usize,
        /// As it is there.
        path: String,
        /// Why.
        #[source]
        source: PathFault,
    },
    /// There are too many lines.
    #[error("there are more than {LINE_LIMIT} lines")]
    TooLong,
}

impl FromStr for SquashfsOrder {
    type Err = SquashfsOrderError;

    fn from_str(text: &str) -> Result<Self, SquashfsOrderError> {
        let mut ranks = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            if number >= LINE_LIMIT {
                return Err(SquashfsOrderError::TooLong);
            }
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let split = line.rsplit_once([' ', '\t']).and_then(|(path, rank)| Some((path, rank.parse::<i16>().ok()?)));
            let (path, rank) = match split {
                Some((path, priority)) => (path.trim_end(), priority.into()),
                None => (line, NAMED - i64::try_from(number).unwrap_or(NAMED)),
            };
            let named = TreePath::from_user(path);
            let fault = |source| SquashfsOrderError::Path { line: number + 1, path: path.into(), source };
            ranks.entry(named.map_err(fault)?).or_insert(rank);
        }
        Ok(Self { ranks })
    }
}

impl SquashfsOrder {
    /// The rank of each file that is named, or that is in a folder which is; of several names, the first one counts.
    pub(super) fn ranks(&self, inventory: &Inventory<'_>) -> HashMap<NodeId, i64> {
        let mut ranks = HashMap::new();
        if self.ranks.is_empty() {
            return ranks;
        }
        for (path, id) in inventory.tree.walk() {
            if let Some(rank) = self.rank(&path) {
                let known = ranks.entry(id).or_insert(rank);
                *known = rank.max(*known);
            }
        }
        ranks
    }

    fn rank(&self, path: &TreePath) -> Option<i64> {
        let mut here = path.clone();
        loop {
            if let Some(rank) = self.ranks.get(&here) {
                return Some(*rank);
            }
            here = here.split()?.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leads_out_is_refused_with_its_line() {
        let error = "# use\n\nbin/a\n../b".parse::<SquashfsOrder>().unwrap_err();
        assert_eq!(error.to_string(), "line 4: `../b` is no path in the root");
    }

    #[test]
    fn named_files_come_first_and_priorities_count_from_high_to_low() {
        let order: SquashfsOrder = "/sbin/init\nusr/lib/a b\nusr -5\nlost\t7\nusr/lib 3".parse().unwrap();
        let rank = |text: &str| order.rank(&TreePath::from_user(text).unwrap());
        let ranks = ["sbin/init", "usr/lib/a b", "lost", "usr/lib/other", "usr/bin/x"].map(rank);
        assert!(ranks.is_sorted_by(|before, after| before > after), "{ranks:?}");
        assert_eq!(rank("etc/passwd"), None);
        assert_eq!(rank("usr/bin/x"), Some(-5));
    }
}
