//! Trains a head on features that came from anywhere: `cargo run --release --example train_on_a_matrix`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use lastlayer::{Lbfgs, LinearHead, Recipe};
use linfa::DatasetBase;
use linfa::traits::{Fit, Predict};
use ndarray::{Array1, ArrayView2};

/// The ten lines: any `[n, d]` matrix of f32 and one class a row.
fn train(features: ArrayView2<'_, f32>, classes: Array1<usize>) -> lastlayer::Result<LinearHead> {
    let dataset = DatasetBase::new(features, classes);
    let recipe = Recipe {
        standardize: true,
        ..Recipe::from(Lbfgs {
            c: 0.1,
            ..Lbfgs::default()
        })
    };
    let head = recipe.fit(&dataset)?;
    let right = head
        .predict(&dataset)
        .iter()
        .zip(&dataset.targets)
        .filter(|(a, b)| a == b)
        .count();
    println!(
        "{right} of {} rows are classified as they should be",
        dataset.targets.len()
    );
    Ok(head)
}

fn main() -> lastlayer::Result<()> {
    // Three clouds on a circle.
    let rows: Vec<f32> = (0..300)
        .flat_map(|row| {
            let (angle, spread) = ((row % 3) as f32 * 2.1, (row as f32 * 0.7).sin() * 0.4);
            [angle.cos() + spread, angle.sin() - spread]
        })
        .collect();
    let features = ArrayView2::from_shape((300, 2), &rows).expect("300 rows of 2");
    let head = train(features, (0..300).map(|row| row % 3).collect())?;
    println!("weight {:.2}\nbias {:.2}", head.weight(), head.bias());
    Ok(())
}
