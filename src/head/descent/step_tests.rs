//! The fused pass and every instruction set give the bits of the plain form.
use super::*;

fn made(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|index| (index as f32 * seed).sin()).collect()
}

fn steps() -> Vec<Sgd> {
    let plain = Sgd {
        rate: 0.01,
        decay: 0.0,
        momentum: 0.9,
        gain: 1.0,
        nesterov: false,
    };
    vec![
        plain,
        Sgd { decay: 0.1, ..plain },
        Sgd { gain: 0.7, ..plain },
        Sgd {
            nesterov: true,
            ..plain
        },
        Sgd { momentum: 0.0, ..plain },
    ]
}

#[test]
fn one_fused_pass_equals_gradient_and_step() {
    for (step, rows) in steps()
        .into_iter()
        .flat_map(|step| (1..=FUSED_ROWS).map(move |rows| (step, rows)))
    {
        for (dim, classes) in [(1, 1), (7, 2), (64, 3), (65, 4), (512, 5)] {
            let x = made(rows * dim, 0.73);
            let x: Vec<&[f32]> = x.chunks(dim).collect();
            let values = made(classes * rows, 0.9);
            let residuals = Residuals {
                values: &values,
                stride: rows,
                offset: 0,
                rows,
            };
            let (mut weight, mut velocity) = (made(classes * dim, 0.37), made(classes * dim, 0.11));
            let (mut expected, mut expected_velocity) = (weight.clone(), velocity.clone());
            step.descend(&mut weight, &mut velocity, dim, &residuals, &x);
            let mut gradient = vec![0.0; classes * (dim + 1)];
            residuals.gradient(dim, &x, &mut gradient);
            Step::Sgd(step).apply(
                &mut expected,
                &mut expected_velocity,
                &mut [],
                &gradient[..classes * dim],
            );
            assert_eq!(
                (weight, velocity),
                (expected, expected_velocity),
                "{step:?} {rows} {dim} {classes}"
            );
        }
    }
}

#[test]
fn every_instruction_set_gives_the_same_bits() {
    let (weight, first, gradient) = (made(333, 0.37), made(333, 0.11), made(333, 0.9));
    for step in steps() {
        let (mut best, mut plain) = ((weight.clone(), first.clone()), (weight.clone(), first.clone()));
        sgd(step, &mut best.0, &mut best.1, &gradient);
        sgd_anywhere(step, &mut plain.0, &mut plain.1, &gradient);
        assert_eq!(best, plain);
        let rows: Vec<&[f32]> = vec![&gradient, &first, &weight, &gradient];
        fused_single(step, &mut best.0, &mut best.1, &[0.1, 0.2, 0.3, 0.4], &rows);
        fused_anywhere(step, [&mut plain.0], [&mut plain.1], [&[0.1, 0.2, 0.3, 0.4]], &rows);
        assert_eq!(best, plain);
    }
    let second: Vec<f32> = gradient.iter().map(|value| value * value).collect();
    for beta1 in [0.9, 0.3] {
        let options = Descent::adamw();
        let rates = Rates {
            learning_rate: 0.01,
            momentum: beta1,
        };
        let Step::AdamW(step) = Step::new(&options, rates, 2) else {
            unreachable!()
        };
        let mut best = (weight.clone(), first.clone(), second.clone());
        let mut plain = best.clone();
        adamw(step, &mut best.0, &mut best.1, &mut best.2, &gradient);
        adamw_anywhere(step, &mut plain.0, &mut plain.1, &mut plain.2, &gradient);
        assert_eq!(best, plain);
    }
}

#[test]
fn powers_by_squaring() {
    for (base, exponent) in [(0.9_f64, 0), (0.9, 1), (0.999, 7), (0.999, 1000), (0.5, 20)] {
        let plain = (0..exponent).fold(1.0, |product, _| product * base);
        assert!(
            (power(base, exponent) - plain).abs() < 1e-13 * plain,
            "{base} {exponent}"
        );
    }
}

#[test]
fn velocities_that_fade_away_become_0_before_they_are_subnormal() {
    let step = Step::Sgd(steps()[0]);
    let before = [1e-29, -1e-29, 1e-31, -1e-31, 1e-40, 0.0, f32::INFINITY];
    let mut velocity = before;
    step.tidy(&mut velocity, TIDY_EVERY - 1);
    assert_eq!(velocity, before);
    step.tidy(&mut velocity, TIDY_EVERY);
    assert_eq!(velocity, [1e-29, -1e-29, 0.0, 0.0, 0.0, 0.0, f32::INFINITY]);
    let mut undefined = [f32::NAN];
    step.tidy(&mut undefined, TIDY_EVERY);
    assert!(undefined[0].is_nan(), "a training that went wrong must be seen");
}

#[test]
fn adamw_remembers_nothing_subnormal() {
    let rates = Rates {
        learning_rate: 0.01,
        momentum: 0.9,
    };
    let step = Step::new(&Descent::adamw(), rates, 5);
    let (mut weight, mut mean, mut square) = ([0.5; 3], [1e-30, 1e-3, 0.0], [1e-36, 1e-6, 0.0]);
    step.apply(&mut weight, &mut mean, &mut square, &[1e-20, 1e-3, 1e-16]);
    assert_eq!((mean[0], square[0]), (0.0, 0.0));
    assert!(mean[1] > 0.0 && square[1] > 0.0 && mean[2] > 0.0 && square[2] > 0.0);
    assert!(weight[1] < 0.5, "{weight:?}");
}
