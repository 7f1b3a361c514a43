//! `.npy` of version 1.0, as NumPy's format document describes it.

use std::path::{Path, PathBuf};

use super::{FeatureTable, Listing, RowSource, Writing, feature_bytes, with_extension};
use crate::error::Result;

/// NumPy aligns the numbers to this, so that they can be mapped.
const ALIGNMENT: usize = 64;

pub(super) fn write(prefix: &Path, table: FeatureTable<'_>, row: RowSource<'_, '_>) -> Result<Vec<PathBuf>> {
    let mut array = Writing::create(with_extension(prefix, "npy"))?;
    let mut listing = Listing::create(prefix)?;
    array.put(&header(table.count, table.dim))?;
    for index in 0..table.count {
        let row = row(index)?;
        array.put(feature_bytes(row.feature))?;
        listing.put(&row)?;
    }
    Ok(vec![array.finish()?, listing.finish()?])
}

/// The bytes before the numbers of an f32 array `[rows, dim]` in C order.
fn header(rows: usize, dim: usize) -> Vec<u8> {
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    let before = b"\x93NUMPY\x01\x00".len() + 2;
    let length = (before + text.len() + 1).next_multiple_of(ALIGNMENT) - before;
    text.extend(std::iter::repeat_n(' ', length - 1 - text.len()));
    text.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(
        &u16::try_from(length)
            .expect("two numbers take little room")
            .to_le_bytes(),
    );
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
