//! Every remainder, and the same bits with every instruction set.
use super::*;

fn made(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|index| (index as f32 * seed).sin()).collect()
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Shapes that leave every kind of remainder: rows, dim, classes.
fn shapes() -> impl Iterator<Item = (usize, usize, usize)> {
    let rows = [1, 2, 3, 4, 5, 7, 8, 9, 17, 31];
    let dims = [1, 7, 15, 16, 17, 31, 64, 83];
    rows.into_iter().flat_map(move |rows| {
        dims.into_iter()
            .flat_map(move |dim| (1..8).map(move |classes| (rows, dim, classes)))
    })
}

#[test]
fn logits_equal_a_plain_sum_for_every_remainder() {
    for (rows, dim, classes) in shapes() {
        let (weight, bias) = (made(classes * dim, 0.37), made(classes, 1.0));
        let x = made(rows * dim, 0.73);
        let x: Vec<&[f32]> = x.chunks(dim).collect();
        let (mut by_row, mut by_class) = (vec![0.0; rows * classes], vec![0.0; rows * classes]);
        logits(&weight, &bias, &x, &mut by_row, Strides { row: classes, class: 1 });
        logits(&weight, &bias, &x, &mut by_class, Strides { row: 1, class: rows });
        for (row, x) in x.iter().enumerate() {
            for class in 0..classes {
                let products = x.iter().zip(&weight[class * dim..]);
                let plain: f64 = products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
                let got = by_row[row * classes + class];
                // 64 products of at most 1 in f32: far below 1e-5.
                assert!(
                    (f64::from(got) - plain - f64::from(bias[class])).abs() < 1e-5,
                    "{rows} {dim} {classes}"
                );
                assert_eq!(got.to_bits(), by_class[class * rows + row].to_bits());
            }
        }
    }
}

#[test]
fn gradients_add_rows_one_after_another_for_every_remainder() {
    for (rows, dim, classes) in shapes() {
        let (x, residuals) = (made(rows * dim, 0.73), made(rows * classes, 0.91));
        let x: Vec<&[f32]> = x.chunks(dim).collect();
        let mut got = vec![f32::NAN; classes * dim];
        gradient(&mut got, dim, &residuals, rows, &x);
        for class in 0..classes {
            for column in 0..dim {
                let plain = (0..rows).fold(0.0, |sum, row| {
                    residuals[class * rows + row].mul_add(x[row][column], sum)
                });
                assert_eq!(got[class * dim + column], plain, "{rows} {dim} {classes}");
            }
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (rows, dim, classes) in shapes() {
        let (weight, bias, residuals) = (
            made(classes * dim, 0.37),
            made(classes, 1.0),
            made(rows * classes, 0.91),
        );
        let x = made(rows * dim, 0.73);
        let x: Vec<&[f32]> = x.chunks(dim).collect();
        let (mut best, mut plain) = (vec![0.0; rows * classes], vec![0.0; rows * classes]);
        let strides = Strides { row: 1, class: rows };
        logits(&weight, &bias, &x, &mut best, strides);
        logits_anywhere::<false>(&weight, &bias, &x, &mut plain, strides);
        assert_eq!(bits(&best), bits(&plain));
        let (mut best, mut plain) = (weight.clone(), weight.clone());
        gradient(&mut best, dim, &residuals, rows, &x);
        gradient_anywhere::<false>(&mut plain, dim, &residuals, rows, &x);
        assert_eq!(bits(&best), bits(&plain));
        add(&mut best, &weight);
        add_anywhere(&mut plain, &weight);
        assert_eq!(bits(&best), bits(&plain));
        assert_eq!(
            sum_of_squares(&weight).to_bits(),
            sum_of_squares_anywhere(&weight).to_bits()
        );
    }
}

#[test]
fn squares_are_summed() {
    assert_eq!(sum_of_squares(&[3.0; 11]), 99.0);
    assert_eq!(sum_of_squares(&[]), 0.0);
}
