//! The identity of a feature: which bytes, in which feature space, seen how.

use std::fmt;

use serde::Serialize;

/// Everything that can change a feature's numbers, in one canonical text.
///
/// Two runs share features exactly when their spaces have the same [`SpaceId`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeatureSpace {
    json: String,
    id: SpaceId,
}

impl FeatureSpace {
    /// The space that `description` describes.
    ///
    /// The description is serialised as compact JSON in its own field order; its blake3 hash is the id. A field more or
    /// less, or another value, is another space.
    #[must_use]
    pub fn new(description: &impl Serialize) -> Self {
        let json = serde_json::to_string(description).expect("a description holds strings and numbers only");
        Self::from_json(json)
    }

    /// The space whose canonical JSON is `json`, as [`FeatureSpace::json`] gave it.
    #[must_use]
    pub fn from_json(json: String) -> Self {
        let id = SpaceId(*blake3::hash(json.as_bytes()).as_bytes());
        Self { json, id }
    }

    /// The canonical JSON.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    /// blake3 of the canonical JSON.
    #[must_use]
    pub fn id(&self) -> SpaceId {
        self.id
    }
}

/// The 32-byte name of a [`FeatureSpace`]; displayed as its first 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpaceId(pub [u8; 32]);

impl fmt::Display for SpaceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..16].iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for SpaceId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SpaceId({self})")
    }
}

/// The key of one row within a space: blake3 of the picture's file, and which view of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RowKey {
    /// blake3 of the file's bytes.
    pub content: [u8; 32],
    /// 0 is the plain view (resize, centre crop), others are random views; [`PARTIAL`] is set in those of what there is of
    /// a picture that is cut off. Which number is which view is known to [`View`](crate::View).
    pub view: u32,
}

/// In a view: the picture's file ends before its pixels do, and what was missing is filled.
pub const PARTIAL: u32 = 1 << 31;

impl RowKey {
    /// The plain view of the picture with this content hash.
    #[must_use]
    pub fn plain(content: [u8; 32]) -> Self {
        Self { content, view: 0 }
    }

    /// The plain view of what there is of a picture that is cut off.
    #[must_use]
    pub fn partial(content: [u8; 32]) -> Self {
        Self { content, view: PARTIAL }
    }

    /// Where a hash table has the key: the content is a cryptographic hash already.
    pub(crate) fn table_hash(&self) -> u64 {
        let (head, _) = self.content.split_first_chunk::<8>().expect("32 bytes hold eight");
        u64::from_le_bytes(*head) ^ u64::from(self.view).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }

    /// The content hash in hexadecimal.
    pub(crate) fn content_hex(&self) -> String {
        blake3::Hash::from_bytes(self.content).to_hex().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_of_the_description_is_another_space() {
        #[derive(Serialize, Clone)]
        struct Description {
            crop: u32,
            mean: [f32; 2],
        }
        let base = Description {
            crop: 224,
            mean: [0.485, 0.456],
        };
        let space = FeatureSpace::new(&base);
        assert_eq!(space.json(), r#"{"crop":224,"mean":[0.485,0.456]}"#);
        assert_eq!(space, FeatureSpace::from_json(space.json().to_owned()));
        assert_ne!(
            space.id(),
            FeatureSpace::new(&Description {
                crop: 225,
                ..base.clone()
            })
            .id()
        );
        assert_ne!(
            space.id(),
            FeatureSpace::new(&Description {
                mean: [0.485, 0.457],
                ..base
            })
            .id()
        );
        assert_eq!(space.id().to_string().len(), 32);
    }

    #[test]
    fn views_of_one_picture_lie_apart_in_a_table() {
        let hashes: std::collections::BTreeSet<u64> = (0..100)
            .map(|view| RowKey { content: [7; 32], view }.table_hash() >> 57)
            .collect();
        assert!(hashes.len() > 50, "{} different tags", hashes.len());
    }
}
