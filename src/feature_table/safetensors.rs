//! safetensors, written as the rows come: the crate's own writer wants all of them in memory.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::{FeatureTable, Listing, RowSource, Writing, feature_bytes, with_extension};
use crate::error::Result;

pub(super) fn write(prefix: &Path, table: FeatureTable<'_>, row: RowSource<'_, '_>) -> Result<Vec<PathBuf>> {
    let mut tensors = Writing::create(with_extension(prefix, "safetensors"))?;
    let mut listing = Listing::create(prefix)?;
    tensors.put(&header(table))?;
    let classes: HashMap<&str, i32> = table.classes.iter().map(String::as_str).zip(0..).collect();
    let mut labels = Vec::with_capacity(table.count);
    for index in 0..table.count {
        let row = row(index)?;
        tensors.put(feature_bytes(row.feature))?;
        listing.put(&row)?;
        labels.push(row.label.and_then(|label| classes.get(label)).copied().unwrap_or(-1));
    }
    for label in labels {
        tensors.put(&i64::from(label).to_le_bytes())?;
    }
    Ok(vec![tensors.finish()?, listing.finish()?])
}

/// The length of the JSON header and the header itself, padded to a multiple of eight bytes.
fn header(table: FeatureTable<'_>) -> Vec<u8> {
    let FeatureTable { dim, count, .. } = table;
    let mut metadata = Map::new();
    metadata.insert("format".to_owned(), "pt".into());
    metadata.insert(
        "lastlayer.classes".to_owned(),
        Value::from(table.classes.to_vec()).to_string().into(),
    );
    for (key, value) in table.metadata {
        metadata.insert(key.clone(), value.as_str().into());
    }
    let features = 4 * dim as u64 * count as u64;
    let header = json!({
        "__metadata__": metadata,
        "features": { "dtype": "F32", "shape": [count, dim], "data_offsets": [0, features] },
        "labels": { "dtype": "I64", "shape": [count], "data_offsets": [features, features + 8 * count as u64] },
    });
    let mut text = header.to_string().into_bytes();
    text.resize(text.len().next_multiple_of(8), b' ');
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.append(&mut text);
    bytes
}
