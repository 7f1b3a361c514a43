//! What members tell each other.
use super::*;

#[test]
fn shares_are_added_as_a_tree_and_rows_stay_in_order() {
    for members in [1, 2, 4, 8] {
        // Of these values an f32 sum depends on its shape.
        let values: Vec<f32> = (0..8)
            .map(|leaf| [1e8_f32, 1.0, -1e8, 3.5][leaf % 4] * (leaf as f32 + 0.1))
            .collect();
        let pair = |index: usize| values[index] + values[index + 1];
        let expected = (pair(0) + pair(2)) + (pair(4) + pair(6));
        let team = Team::new(members);
        let results: Vec<(f32, Vec<f64>)> = thread::scope(|scope| {
            let running: Vec<_> = (0..members)
                .map(|rank| {
                    let (team, values) = (&team, &values);
                    scope.spawn(move || {
                        let mut member = Member::of(team, rank);
                        let mut share = Share::default();
                        let mut last = (0.0, Vec::new());
                        for _ in 0..100 {
                            let own = &values[rank * 8 / members..(rank + 1) * 8 / members];
                            let mut level = own.to_vec();
                            while level.len() > 1 {
                                level = level.chunks(2).map(|pair| pair[0] + pair[1]).collect();
                            }
                            share.gradient = level;
                            let row = |loss: &f32| RowScore {
                                loss: f64::from(*loss),
                                correct: false,
                            };
                            share.rows = own.iter().map(row).collect();
                            member.exchange(&mut share);
                            last = (share.gradient[0], share.rows.iter().map(|row| row.loss).collect());
                        }
                        last
                    })
                })
                .collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (sum, rows) in results {
            if members > 1 {
                assert_eq!(sum, expected, "{members}");
            }
            assert!(rows.iter().zip(&values).all(|(row, value)| *row == f64::from(*value)));
        }
    }
}

#[test]
fn nobody_waits_for_a_member_that_panicked() {
    let team = Team::new(2);
    let panicked = thread::scope(|scope| {
        let waiting = scope.spawn(|| Member::of(&team, 0).exchange(&mut Share::default()));
        let failing = scope.spawn(|| {
            let _member = Member::of(&team, 1);
            panic!("on purpose");
        });
        (waiting.join().is_err(), failing.join().is_err())
    });
    assert_eq!(panicked, (true, true));
}
