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
