//! What is trained on: cats4's features where they are there, and made ones.

use std::path::Path;

use ndarray::{Array2, Axis};

use super::Result;

/// A backbone's features are as wide.
pub(crate) const DIM: usize = 512;

/// Features and labels, to train on and to check by.
pub(crate) struct Data {
    pub(crate) name: &'static str,
    pub(crate) classes: usize,
    pub(crate) train: (Array2<f32>, Vec<usize>),
    pub(crate) validation: (Array2<f32>, Vec<usize>),
}

/// The features of cats4: 504 pictures of 4 breeds to train on, 216 to check by; or made ones of that shape.
pub(crate) fn cats4() -> Result<Data> {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference");
    let features = reference.join("cats4_features.npy");
    if !features.is_file() {
        let (all, labels) = features_like_a_backbones(720, 4, 0);
        return Ok(split("made features of cats4's shape", &all, &labels, |row| row < 504));
    }
    let all: Array2<f32> = ndarray_npy::read_npy(features)?;
    let mut rows = csv::ReaderBuilder::new()
        .delimiter(b'\t')
        .from_path(reference.join("cats4_rows.tsv"))?;
    let (mut labels, mut in_train) = (Vec::new(), Vec::new());
    for row in rows.records() {
        let row = row?;
        in_train.push(&row[1] == "train");
        labels.push(row[2].parse()?);
    }
    Ok(split("cats4's features", &all, &labels, |row| in_train[row]))
}

fn split(name: &'static str, all: &Array2<f32>, labels: &[usize], in_train: impl Fn(usize) -> bool) -> Data {
    let part = |train: bool| {
        let rows: Vec<usize> = (0..labels.len()).filter(|&row| in_train(row) == train).collect();
        let labels = rows.iter().map(|&row| labels[row]).collect();
        (all.select(Axis(0), &rows), labels)
    };
    Data {
        name,
        classes: labels.iter().max().map_or(0, |&label| label + 1),
        train: part(true),
        validation: part(false),
    }
}

/// Features that vary together as a backbone's do: not negative, and the share of the variance along the `i`-th direction
/// falls as 1/i, which is near what the features of ResNet18 on cats4 show. Classes overlap.
pub(crate) fn features_like_a_backbones(rows: usize, classes: usize, seed: u64) -> (Array2<f32>, Vec<usize>) {
    /// How far the classes' centres lie apart, against the spread within a class.
    const SEPARATION: f32 = 0.2;
    let mut random = Random(seed);
    let mut spread = |count: usize| {
        let mut values = Array2::from_shape_simple_fn((count, DIM), || random.normal());
        for (index, mut column) in values.columns_mut().into_iter().enumerate() {
            column *= 1.0 / ((index + 1) as f32).sqrt();
        }
        values
    };
    let centres = spread(classes) * SEPARATION;
    let mut hidden = spread(rows);
    let labels: Vec<usize> = (0..rows).map(|row| row % classes).collect();
    for (mut row, &label) in hidden.rows_mut().into_iter().zip(&labels) {
        row += &centres.row(label);
    }
    let variance: f32 = (1..=DIM).map(|index| 1.0 / index as f32).sum();
    let mix = Array2::from_shape_simple_fn((DIM, DIM), || random.normal()) / variance.sqrt();
    let features = hidden.dot(&mix).mapv_into(|value| (value + 0.5).max(0.0));
    (features, labels)
}

/// As many rows as are wanted, quickly: noise around a centre for each class.
pub(crate) fn noise(rows: usize, classes: usize, seed: u64) -> (Array2<f32>, Vec<usize>) {
    let mut random = Random(seed);
    let centres = Array2::from_shape_simple_fn((classes, DIM), || random.uniform() * 0.2);
    let labels: Vec<usize> = (0..rows).map(|row| row % classes).collect();
    let mut features = Array2::from_shape_simple_fn((rows, DIM), || random.uniform());
    for (mut row, &label) in features.rows_mut().into_iter().zip(&labels) {
        row += &centres.row(label);
    }
    (features, labels)
}

/// SplitMix64, so that the inputs are the same on every machine.
struct Random(u64);

impl Random {
    /// In 0..1.
    fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    /// Of mean 0 and variance 1 (Box and Muller).
    fn normal(&mut self) -> f32 {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        radius * (std::f32::consts::TAU * self.uniform()).cos()
    }
}
