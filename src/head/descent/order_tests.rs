//! What an epoch sees.
use ndarray::Array2;

use super::*;
use crate::head::training::Examples;

fn source_of(task: &TrainingTask<'_>, check: impl FnOnce(Source<'_>)) {
    check(Source::new(task));
}

#[test]
fn balanced_epochs_draw_each_class_as_often_as_another_and_each_of_its_rows() {
    // Class 0 has 90 rows, class 2 has 10, class 1 none.
    let labels: Vec<usize> = (0..100).map(|row| if row < 90 { 0 } else { 2 }).collect();
    let x = Array2::<f32>::zeros((100, 1));
    let task = TrainingTask::new(3, Examples::new(x.view(), &labels).unwrap()).unwrap();
    source_of(&task, |source| {
        let mut order = Order::new(&task, &source, Sampling::Balanced, 5);
        let mut counts = [0_usize; 100];
        for epoch in 0..200 {
            order.next(epoch);
            assert_eq!(order.rows().len(), 100);
            order.rows().iter().for_each(|&row| counts[row as usize] += 1);
        }
        // Binomial(20000, 1/2) has a standard deviation of 71; Binomial(20000, 1/180) of 10.5, Binomial(20000, 1/20) of 31.
        let first: usize = counts[..90].iter().sum();
        assert!(first.abs_diff(10_000) < 350, "{first}");
        assert!(counts[..90].iter().all(|count| count.abs_diff(111) < 60), "{counts:?}");
        assert!(
            counts[90..].iter().all(|count| count.abs_diff(1000) < 160),
            "{counts:?}"
        );
    });
}

#[test]
fn each_epoch_draws_a_view_of_each_row_anew() {
    let labels = vec![0; 50];
    let plain = Array2::from_elem((50, 2), -1_f32);
    let views: Vec<Array2<f32>> = (0..4).map(|view| Array2::from_elem((50, 2), view as f32)).collect();
    let task = TrainingTask::new(1, Examples::new(plain.view(), &labels).unwrap())
        .unwrap()
        .with_views(views.iter().map(Array2::view).collect())
        .unwrap();
    source_of(&task, |source| {
        let mut order = Order::new(&task, &source, Sampling::Shuffled, 5);
        let mut counts = [0_usize; 4];
        let mut before = Vec::new();
        for epoch in 0..100 {
            order.next(epoch);
            let mut rows = order.rows().to_vec();
            let drawn: Vec<f32> = (0..50).map(|row| order.features(row)[0]).collect();
            assert_ne!(drawn, before);
            drawn.iter().for_each(|&view| counts[view as usize] += 1);
            before = drawn;
            rows.sort_unstable();
            assert!(rows.into_iter().eq(0..50));
        }
        // Binomial(5000, 1/4) has a standard deviation of 31.
        assert!(counts.iter().all(|count| count.abs_diff(1250) < 160), "{counts:?}");
    });
}

#[test]
fn a_given_order_is_followed() {
    let x = Array2::from_shape_fn((3, 1), |(row, _)| row as f32);
    let given = [vec![2, 0, 0], vec![1]];
    let task = TrainingTask::new(1, Examples::new(x.view(), &[0, 0, 0]).unwrap())
        .and_then(|task| task.with_order(&given))
        .unwrap();
    source_of(&task, |source| {
        let mut order = Order::new(&task, &source, Sampling::Shuffled, 5);
        order.next(0);
        assert_eq!(order.rows(), [2, 0, 0]);
        assert_eq!(order.features(2), [2.0]);
        order.next(1);
        assert_eq!(order.rows(), [1]);
    });
}
