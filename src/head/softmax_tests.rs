//! Accuracy, ties, and the same bits with every instruction set.
use super::*;

#[test]
fn log_sum_exp_is_row_wise_and_does_not_overflow() {
    // ln(1 + e + e²) by hand; shifting every logit shifts the result by as much.
    let expected = (1.0_f64 + 1_f64.exp() + 2_f64.exp()).ln();
    assert!((log_sum_exp(&[0.0_f64, 1.0, 2.0]) - expected).abs() < 1e-15);
    assert!((log_sum_exp(&[1e4_f64, 1e4 + 1.0, 1e4 + 2.0]) - 1e4 - expected).abs() < 1e-11);
    assert!((log_sum_exp(&[-1e4_f32, -1e4 + 1.0, -1e4 + 2.0]) + 1e4 - expected).abs() < 1e-11);
    assert_eq!(log_sum_exp(&[f32::INFINITY, 0.0]), f64::INFINITY);
    assert_eq!(log_sum_exp::<f32>(&[f32::NEG_INFINITY; 2]), f64::NEG_INFINITY);
    for rest in [0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert!(log_sum_exp(&[f32::NAN, rest]).is_nan());
    }
}

#[test]
fn exp_and_ln_are_within_a_unit_in_the_last_place() {
    // The platform's are within half a unit or a little more of the true values.
    let units = |got: f64, expected: f64| (got - expected).abs() / (expected.abs() * f64::EPSILON);
    let (mut largest_exp, mut largest_ln) = (0_f64, 0_f64);
    for index in 0..400_000 {
        let x = -f64::from(index) * 1.7e-3;
        largest_exp = largest_exp.max(units(exp(x), x.exp()));
        for x in [1.0 + f64::from(index) * 1e-6, 1.0 + f64::from(index) * 0.37] {
            largest_ln = largest_ln.max(if index == 0 { ln(x).abs() } else { units(ln(x), x.ln()) });
        }
    }
    assert!(largest_exp <= 1.5, "{largest_exp}");
    assert!(largest_ln <= 1.5, "{largest_ln}");
    assert_eq!(
        (exp(0.0), exp(-800.0), exp(f64::NEG_INFINITY), ln(1.0)),
        (1.0, 0.0, 0.0, 0.0)
    );
    assert!(exp(f64::NAN).is_nan() && ln(f64::NAN).is_nan());
}

#[test]
fn a_row_is_divided_by_its_temperature() {
    let row = [0.3_f64, -2.0, 1.7, 1.7];
    let mut probabilities = vec![9.0; 7];
    for temperature in [0.01, 0.5, 1.0, 3.0, 100.0] {
        let logs = softmax_row_at(&row, temperature, &mut probabilities);
        let total: f64 = row.iter().map(|logit| ((logit - 1.7) / temperature).exp()).sum();
        assert_eq!(probabilities.len(), 4);
        for (logit, probability) in row.iter().zip(&probabilities) {
            let expected = (logit - 1.7) / temperature - total.ln();
            assert!((logs.of(*logit) - expected).abs() <= 1e-15 * expected.abs().max(1.0));
            assert!((probability - expected.exp()).abs() < 1e-15);
        }
        // Logits that are large together cost no digits.
        let far = row.map(|logit| logit + 1_048_576.0);
        let near = far.map(|logit| logit - 1_048_576.0);
        let (mut of_far, mut of_near) = (Vec::new(), Vec::new());
        softmax_row_at(&far, temperature, &mut of_far);
        softmax_row_at(&near, temperature, &mut of_near);
        assert_eq!(of_far, of_near);
    }
}

#[test]
fn no_temperature_above_0_makes_a_probability_nan() {
    let mut probabilities = Vec::new();
    for temperature in [f64::from_bits(1), 1e-310, 1e300, f64::MAX] {
        softmax_row_at(&[3e38_f32, -3e38, 3e38], temperature, &mut probabilities);
        let sum: f64 = probabilities.iter().sum();
        assert!((sum - 1.0).abs() < 1e-15, "{temperature}: {probabilities:?}");
    }
}

fn made_logits(classes: usize, stride: usize) -> Vec<f32> {
    (0..classes * stride)
        .map(|index| (index as f32 * 1.3).sin() * 20.0)
        .collect()
}

#[test]
fn columns_have_the_softmax_of_their_rows() {
    for (classes, columns) in [(1, 1), (2, 4), (5, 9), (10, 64), (3, 21)] {
        let stride = Softmax::stride(columns);
        let logits = made_logits(classes, stride);
        let mut softmax = Softmax::default();
        softmax.of(&logits, stride);
        for column in 0..columns {
            let row: Vec<f32> = (0..classes).map(|class| logits[class * stride + column]).collect();
            assert_eq!(softmax.log_sum_exps[column], log_sum_exp(&row));
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            for (class, &logit) in row.iter().enumerate() {
                let probability = softmax.powers[class * stride + column] / softmax.sums[column];
                assert!((probability - f64::from(logit).exp() / total).abs() < 1e-15);
                let score = softmax.score(&logits, stride, column, class);
                assert!((score.loss + probability.ln()).abs() < 1e-13);
                assert_eq!(score.correct, crate::head::loss::argmax(&row) == class);
            }
        }
    }
}

#[test]
fn the_first_of_equal_logits_is_the_best_of_a_column() {
    let mut softmax = Softmax::default();
    softmax.of(&[1.0, 0.0, 0.0, 5.0, 1.0, 2.0, 0.0, 5.0, 0.0, 2.0, 0.0, 6.0], 4);
    assert_eq!(softmax.best, [0.0, 1.0, 0.0, 2.0]);
}

#[test]
fn infinite_and_undefined_logits_leave_their_column_only() {
    let mut softmax = Softmax::default();
    softmax.of(
        &[f32::INFINITY, f32::NAN, 0.0, f32::NEG_INFINITY, 0.0, 0.0, 0.0, 0.0],
        4,
    );
    assert_eq!(softmax.log_sum_exps[0], f64::INFINITY);
    assert!(softmax.log_sum_exps[1].is_nan());
    assert!((softmax.log_sum_exps[2] - 2_f64.ln()).abs() < 1e-15);
    assert_eq!(softmax.log_sum_exps[3], 0.0);
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (classes, columns) in [(4, 4), (4, 8), (7, 20), (100, 12)] {
        let logits = made_logits(classes, columns);
        let (mut best, mut plain) = (Softmax::default(), Softmax::default());
        best.of(&logits, columns);
        plain.of(&logits, columns);
        softmax_anywhere(&logits, columns, &mut plain);
        let bits = |softmax: &Softmax| -> Vec<u64> {
            let values = softmax.powers.iter().chain(&softmax.sums).chain(&softmax.log_sum_exps);
            values.map(|value| value.to_bits()).collect()
        };
        assert_eq!(bits(&best), bits(&plain));
    }
}
