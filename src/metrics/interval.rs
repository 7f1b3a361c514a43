//! How far a share of a few pictures may be from the share of all: the interval that goes with every accuracy.

/// The 0.975 quantile of the standard normal distribution: 95 % lie within plus or minus as much.
const QUANTILE: f64 = 1.959_963_984_540_054;

/// The 95 % Wilson score interval of a share of which `correct` of `n` were seen, in `0..=1`.
///
/// `(p + z²/2n ± z·√(p(1-p)/n + z²/4n²)) / (1 + z²/n)` with `p = correct/n`: the shares that a score test at 5 % does not
/// refuse (E. B. Wilson, 1927, "Probable inference, the law of succession, and statistical inference"). Unlike `p ± 1.96 σ`
/// it says something of few pictures and of shares of 0 and 1. Without any picture (`n` 0) it is `[0, 1]`.
#[must_use]
pub fn wilson(correct: usize, n: usize) -> [f64; 2] {
    if n == 0 {
        return [0.0, 1.0];
    }
    let (count, share) = (n as f64, correct as f64 / n as f64);
    let square = QUANTILE * QUANTILE / count;
    let middle = share + square / 2.0;
    let half = QUANTILE * ((share * (1.0 - share) + square / 4.0) / count).sqrt();
    // At the ends the formula gives the end itself, which rounding may miss.
    let lower = if correct == 0 {
        0.0
    } else {
        (middle - half) / (1.0 + square)
    };
    let upper = if correct == n {
        1.0
    } else {
        (middle + half) / (1.0 + square)
    };
    [lower, upper]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bounds_are_the_shares_that_a_score_test_just_refuses() {
        for (correct, n) in [(1, 2), (7, 9), (37, 40), (1, 1000), (499_999, 500_000)] {
            for bound in wilson(correct, n) {
                let deviation = (correct as f64 / n as f64 - bound).abs();
                let sigma = (bound * (1.0 - bound) / n as f64).sqrt();
                assert!(
                    (deviation / sigma - 1.959_963_984_540_054).abs() < 1e-6,
                    "{correct} of {n}"
                );
            }
        }
    }

    #[test]
    fn nothing_seen_allows_everything_and_the_ends_are_exact() {
        assert_eq!(wilson(0, 0), [0.0, 1.0]);
        for n in [1, 3, 10, 1_000_000_007] {
            assert_eq!(wilson(0, n)[0], 0.0);
            assert_eq!(wilson(n, n)[1], 1.0);
        }
    }
}
