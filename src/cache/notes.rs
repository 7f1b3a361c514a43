//! Notes that a cache keeps beside its features: small texts that no number depends on, each whole or not there.

use std::fs;
use std::path::PathBuf;

use super::store::{Cache, list};
use crate::error::Result;

impl Cache {
    /// Where the notes on uses of test splits lie.
    pub(super) fn test_uses_folder(&self) -> PathBuf {
        self.root().join("test_uses")
    }

    /// All notes on uses of test splits; what can't be read is left out.
    pub(crate) fn test_use_notes(&self) -> Vec<String> {
        let mut files = list(&self.test_uses_folder()).unwrap_or_default();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        files.sort();
        files.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
    }

    /// Keeps a note under `name`; one that is there already stays as it is.
    ///
    /// # Errors
    /// When the cache can't be written.
    pub(crate) fn keep_test_use_note(&self, name: &str, text: &str) -> Result<()> {
        let folder = self.test_uses_folder();
        let path = folder.join(name).with_extension("json");
        if path.exists() {
            return Ok(());
        }
        self.files().create_folder(&folder)?;
        self.files().write(&path, &[text.as_bytes()])
    }
}
