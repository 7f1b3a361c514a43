//! What is in the cache, told without reading the rows.

use std::fs;
use std::path::PathBuf;
use std::time::SystemTime;

use super::key::{FeatureSpace, PARTIAL};
use super::segment::Segment;
use super::snapshot::Snapshot;
use super::space::DAMAGED;
use super::store::{Cache, Origin, SPACE_FILE, list};
use crate::error::{Error, Result};

/// One space of the cache.
#[derive(Debug, Clone)]
pub struct SpaceStatus {
    /// What its numbers depend on.
    pub space: FeatureSpace,
    /// Where its backbone lay when it was last used.
    pub origin: Option<Origin>,
    /// Different keys.
    pub rows: usize,
    /// Those of them that are of other views than the plain one.
    pub views: usize,
    /// Numbers per row; `None` while there is no row.
    pub dim: Option<usize>,
    /// Segment files in use.
    pub segments: usize,
    /// Who computed the rows: device and ONNX Runtime version, each pair once.
    pub computed_by: Vec<(String, String)>,
    /// Bytes of all files in its folder.
    pub bytes: u64,
    /// When it was last written or [touched](super::Space::touch).
    pub last_used: SystemTime,
    /// Segments that can't be used, and files that were set aside.
    pub damaged: Vec<PathBuf>,
}

impl Cache {
    /// All spaces, by id. Rows are counted, not checked.
    ///
    /// # Errors
    /// When a folder or file of the cache can't be read.
    pub fn space_status(&self) -> Result<Vec<SpaceStatus>> {
        let status = |(space, origin): (FeatureSpace, Option<Origin>)| {
            let folder = self.space_folder(space.id());
            let snapshot = Snapshot::load(self.files(), &folder, space.id())?;
            let described = folder.join(SPACE_FILE);
            let metadata = fs::metadata(&described).and_then(|metadata| metadata.modified());
            let last_used = metadata.map_err(Error::io("read", &described))?;
            let files = list(&folder)?;
            let bytes = files
                .iter()
                .filter_map(|path| fs::metadata(path).ok())
                .map(|metadata| metadata.len());
            let mut damaged = snapshot.damaged.clone();
            damaged.extend(
                files
                    .iter()
                    .filter(|path| path.extension().is_some_and(|extension| extension == DAMAGED))
                    .cloned(),
            );
            let mut computed_by: Vec<(String, String)> = snapshot
                .segments
                .iter()
                .map(Segment::provenance)
                .map(|provenance| (provenance.device, provenance.runtime))
                .collect();
            computed_by.sort();
            computed_by.dedup();
            Ok(SpaceStatus {
                space,
                origin,
                rows: snapshot.len(),
                views: snapshot.keys().filter(|key| key.view & !PARTIAL != 0).count(),
                dim: snapshot.dim(),
                segments: snapshot.segments.len(),
                computed_by,
                bytes: bytes.sum(),
                last_used,
                damaged,
            })
        };
        self.spaces()?.into_iter().map(status).collect()
    }
}
