//! Which of the spaces in a cache a data set's features are taken from.

use std::path::Path;

use super::listing::Listing;
use crate::cache::{Cache, FeatureSpace, Origin, Space};
use crate::dataset::absolute;
use crate::error::{Error, Result};
use crate::picture::Decode;
use crate::space::{Precision, SpaceDescription};

/// Which of the spaces that a data set has features in is meant.
#[derive(Debug, Clone, Default)]
pub struct SpaceChoice {
    /// The backbone, by the name or the file it was extracted with. Default: any.
    pub backbone: Option<String>,
    /// blake3 of the backbone's bytes, hexadecimal: the same backbone by whatever name. Default: none.
    pub backbone_blake3: Option<String>,
    /// The beginning of the space's id. Default: any.
    pub space: Option<String>,
    /// How much of large pictures was decoded. Default: any.
    pub decode: Option<Decode>,
    /// The arithmetic of the backbone. Default: any.
    pub precision: Option<Precision>,
}

/// A space with rows of the data set.
struct Candidate {
    space: FeatureSpace,
    origin: Option<Origin>,
    rows: Space,
    present: usize,
    /// Pictures that have no row and no failure to explain it.
    missing: usize,
}

/// The one space that `choice` and the cache's content leave. Complete spaces go before others: a space that another
/// data set with some of the same pictures was extracted in is in nobody's way.
pub(super) fn choose(
    cache: &Cache,
    listing: &Listing,
    choice: &SpaceChoice,
) -> Result<(FeatureSpace, Option<Origin>, Space)> {
    let mut found = Vec::new();
    for (space, origin) in cache.spaces()? {
        let Some(rows) = cache.open_space(&space)? else {
            continue;
        };
        let (mut present, mut missing) = (0, 0);
        for known in &listing.seen.known {
            let there = rows.contains(&known.key);
            present += usize::from(there);
            missing += usize::from(!there && !known.failed);
        }
        if present > 0 {
            found.push(Candidate {
                space,
                origin,
                rows,
                present,
                missing,
            });
        }
    }
    let readable = listing.seen.known.iter().filter(|known| !known.failed).count();
    if found.is_empty() && readable == 0 {
        return Err(Error::Dataset {
            path: listing.name.clone(),
            problem: "has no picture that `extract` could read".to_owned(),
            hint: "`lastlayer extract` says of each what is wrong with it".to_owned(),
        });
    }
    if found.is_empty() {
        return Err(listing.not_extracted(readable, None));
    }
    let spaces: Vec<String> = found.iter().map(|candidate| candidate.describe(listing)).collect();
    let path = listing.name.clone();
    found.retain(|candidate| choice.accepts(&candidate.space, candidate.origin.as_ref()));
    let Some(fewest) = found.iter().map(|candidate| candidate.missing).min() else {
        return Err(Error::NoSuchSpace { path, spaces });
    };
    if fewest > 0 {
        return Err(listing.not_extracted(fewest, None));
    }
    found.retain(|candidate| candidate.missing == 0);
    if found.len() > 1 {
        return Err(Error::SeveralSpaces { path, spaces });
    }
    let Candidate {
        space, origin, rows, ..
    } = found.remove(0);
    Ok((space, origin, rows))
}

impl Candidate {
    fn describe(&self, listing: &Listing) -> String {
        let name = self.origin.as_ref().map_or("unknown", |origin| origin.name.as_str());
        let options = SpaceDescription::parse(self.space.json()).map(|description| description.options());
        let options = match options.unwrap_or_default().arguments() {
            none if none.is_empty() => none,
            some => format!("  ({})", some.trim_start()),
        };
        let (id, present, total) = (self.space.id().to_string(), self.present, listing.seen.known.len());
        format!(
            "--space {}  --backbone {name}{options}  {present} of {total} pictures",
            &id[..8]
        )
    }
}

impl SpaceChoice {
    fn accepts(&self, space: &FeatureSpace, origin: Option<&Origin>) -> bool {
        let id = self
            .space
            .as_ref()
            .is_none_or(|prefix| space.id().to_string().starts_with(prefix));
        let backbone = self.backbone.as_ref().is_none_or(|backbone| {
            origin.is_some_and(|origin| {
                origin.name == *backbone || absolute(Path::new(backbone)).is_ok_and(|file| file == origin.file)
            })
        });
        let description = SpaceDescription::parse(space.json());
        let is = |of: &dyn Fn(&SpaceDescription) -> bool| description.as_ref().is_some_and(of);
        let same = self
            .backbone_blake3
            .as_ref()
            .is_some_and(|blake3| is(&|description| description.backbone == *blake3));
        let decode = self
            .decode
            .is_none_or(|decode| is(&|description| description.transform.decode == decode));
        let precision = self
            .precision
            .is_none_or(|precision| is(&|description| description.precision == precision));
        id && (backbone || same) && decode && precision
    }
}
