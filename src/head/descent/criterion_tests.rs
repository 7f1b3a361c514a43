//! The same bits with every instruction set; the rest is `reference_tests`.
use super::*;

#[test]
fn every_instruction_set_gives_the_same_bits() {
    for (smoothing, rows) in [(0.0, 3), (0.1, 4), (0.1, 13), (0.0, 16)] {
        let labels: Vec<usize> = (0..rows).map(|row| row % 3).collect();
        let criterion = Criterion::of(vec![1.0, 0.5, 2.0], smoothing);
        let stride = Softmax::stride(rows);
        let logits: Vec<f32> = (0..3 * stride).map(|index| (index as f32).sin() * 5.0).collect();
        let mut softmax = Softmax::default();
        softmax.of(&logits, stride);
        let mut targets = Targets::default();
        targets.reset(3, stride, criterion.smooths());
        targets.set(0, &criterion, &labels, &[], criterion.total(&labels, &[]));
        let (mut best, mut plain) = (vec![0.0; 3 * stride], vec![0.0; 3 * stride]);
        targets.residuals(&softmax, &mut best);
        derive_anywhere(&targets, &softmax, &mut plain);
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&best), bits(&plain));
        // Whatever the weights, the residuals of a row add up to 0.
        for row in 0..rows {
            let sum: f32 = (0..3).map(|class| best[class * stride + row]).sum();
            assert!(sum.abs() < 1e-6, "{sum}");
        }
    }
}

#[test]
fn residuals_too_small_to_move_a_weight_are_0() {
    let criterion = Criterion::of(vec![1.0; 4], 0.0);
    let (mut softmax, mut targets) = (Softmax::default(), Targets::default());
    let stride = Softmax::stride(1);
    let mut logits = vec![0.0; 4 * stride];
    for (class, logit) in [0.0, -60.0, -75.0, -100.0].into_iter().enumerate() {
        logits[class * stride] = logit;
    }
    softmax.of(&logits, stride);
    targets.reset(4, stride, false);
    targets.set(0, &criterion, &[0], &[], 1.0);
    let mut residuals = vec![f32::NAN; 4 * stride];
    targets.residuals(&softmax, &mut residuals);
    let of = |class: usize| residuals[class * stride];
    // e⁻⁶⁰ is 8.8e-27; e⁻⁷⁵ 2.7e-33, which times a feature may be subnormal; e⁻¹⁰⁰ is subnormal itself.
    assert!((of(1) / (-60.0_f32).exp() - 1.0).abs() < 1e-5, "{}", of(1));
    assert_eq!((of(2), of(3)), (0.0, 0.0));
}
