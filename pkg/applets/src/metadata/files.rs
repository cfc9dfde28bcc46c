//! What is looked for on a disc.

/// The files of a disc that count, as far as they are there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub user_data: Option<Vec<u8>>,
    pub meta_data: Option<Vec<u8>>,
    /// LinuxKit's, of the same meaning as `user-data`.
    pub config: Option<Vec<u8>>,
}

impl Files {
    /// Where the file of this name goes, if it is one of them.
    pub fn slot(&mut self, name: &str) -> Option<&mut Option<Vec<u8>>> {
        match name {
            "user-data" => Some(&mut self.user_data),
            "meta-data" => Some(&mut self.meta_data),
            "config" => Some(&mut self.config),
            _ => None,
        }
    }

    /// Whether they are metadata at all.
    pub fn is_for_us(&self) -> bool {
        self.user_data.is_some() || self.config.is_some()
    }
}
