//! Softmax and log-sum-exp, the only ones of the crate, and the exponential and logarithm under them.
//!
//! `exp` and `ln` are written here because those of the platforms differ in their last bits, and because these can be
//! vectorised. Both are within 1 unit in the last place of f64, far below what an f32 weight can tell.

use std::f64::consts::LOG2_E;
use std::ops::RangeInclusive;

use multiversion::multiversion;

use super::loss::RowScore;

/// Adding and subtracting it rounds an f64 below 2⁵¹ to an integer, which then stands in the lowest bits of the sum.
const ROUND: f64 = 6_755_399_441_055_744.0;
/// ln 2 in two parts, the first of which has 20 trailing zeros: its product with an exponent is exact.
const LN_2: (f64, f64) = (
    f64::from_bits(0x3fe6_2e42_fee0_0000),
    f64::from_bits(0x3dea_39ef_3579_3c76),
);
/// Below it an exponential would be subnormal, and counts as 0.
const LOWEST: f64 = -708.0;
/// Columns whose softmax is formed together. Of so many the compiler makes vectors, of fewer it does not: 16 take no longer than 4.
const MANY: usize = 16;
/// The most columns that are not padded to that.
const FEW: usize = 4;
const MANTISSA: u64 = (1 << 52) - 1;

/// `e^x` for `x` of at most 1; 0 below -708. NaN in, NaN out.
///
/// `2ⁿ·eʳ` with `|r|` up to ½·ln 2, and Taylor's series to the 13th power, whose rest is below 2⁻⁵⁷.
#[inline(always)]
fn exp(x: f64) -> f64 {
    let rounded = x * LOG2_E + ROUND;
    let n = rounded - ROUND;
    let r = (x - n * LN_2.0) - n * LN_2.1;
    let r2 = r * r;
    let r4 = r2 * r2;
    let low = (1.0 / 2.0 + r * (1.0 / 6.0)) + r2 * (1.0 / 24.0 + r * (1.0 / 120.0));
    let middle = (1.0 / 720.0 + r * (1.0 / 5_040.0)) + r2 * (1.0 / 40_320.0 + r * (1.0 / 362_880.0));
    let high =
        (1.0 / 3_628_800.0 + r * (1.0 / 39_916_800.0)) + r2 * (1.0 / 479_001_600.0 + r * (1.0 / 6_227_020_800.0));
    let power = 1.0 + (r + r2 * (low + r4 * (middle + r4 * high)));
    let scale = f64::from_bits(rounded.to_bits().wrapping_add(1023) << 52);
    if x < LOWEST { 0.0 } else { power * scale }
}

/// `ln x` for a normal `x` of at least 1. NaN in, NaN out.
///
/// `k·ln 2 + ln m` with `m` between √½ and √2, and `ln m = 2·artanh((m - 1) / (m + 1))` as Taylor's series.
#[inline(always)]
fn ln(x: f64) -> f64 {
    let bits = x.to_bits();
    // 1 where the mantissa is above √2: this carries into the exponent.
    let carry = ((bits & MANTISSA) + 0x0009_5f61_9980_c433) >> 52;
    let exponent = (bits >> 52) + carry;
    let m = f64::from_bits((bits & MANTISSA) | ((1023 - carry) << 52));
    let k = f64::from_bits(ROUND.to_bits() + exponent) - (ROUND + 1023.0);
    let f = m - 1.0;
    let s = f / (m + 1.0);
    let s2 = s * s;
    let s4 = s2 * s2;
    let even = 2.0 / 3.0 + s4 * (2.0 / 7.0 + s4 * (2.0 / 11.0 + s4 * (2.0 / 15.0 + s4 * (2.0 / 19.0))));
    let odd = 2.0 / 5.0 + s4 * (2.0 / 9.0 + s4 * (2.0 / 13.0 + s4 * (2.0 / 17.0 + s4 * (2.0 / 21.0))));
    // ln m = f - s·(f - series), because 2s = f - s·f: the large term stays exact.
    let series = s2 * (even + s2 * odd);
    let value = k * LN_2.0 + (f - (s * (f - series) - k * LN_2.1));
    if x.is_nan() { x } else { value }
}

/// `log Σ exp(logit)` of one row, in f64.
///
/// The row's own maximum is subtracted first, so no exponential overflows and the largest term is exactly 1. NaN in, NaN
/// out; otherwise a row whose maximum is infinite gives that infinity.
pub(crate) fn log_sum_exp<T: Copy + Into<f64>>(logits: &[T]) -> f64 {
    let maximum = logits
        .iter()
        .fold(f64::NEG_INFINITY, |maximum, &logit| maximum.max(logit.into()));
    if maximum.is_infinite() {
        // A maximum passes over NaN.
        let undefined = logits.iter().any(|&logit| logit.into().is_nan());
        return if undefined { f64::NAN } else { maximum };
    }
    maximum + ln(logits.iter().map(|&logit| exp(logit.into() - maximum)).sum::<f64>())
}

/// Turns one row of logits into its softmax probabilities and returns their `log Σ exp`.
///
/// Infinite logits give NaN.
pub(super) fn softmax_row(logits: &mut [f64]) -> f64 {
    let maximum = logits
        .iter()
        .fold(f64::NEG_INFINITY, |maximum, &logit| maximum.max(logit));
    for logit in logits.iter_mut() {
        *logit = exp(*logit - maximum);
    }
    let sum: f64 = logits.iter().sum();
    let scale = 1.0 / sum;
    for logit in logits.iter_mut() {
        *logit *= scale;
    }
    maximum + ln(sum)
}

/// Temperatures that a head may have. The scale of logits is free, so a head may need any; beyond these, something else is wrong.
pub(crate) const TEMPERATURES: RangeInclusive<f64> = 1e-6..=1e6;

/// From a logit of one row to the logarithm of its probability.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LogSoftmax {
    maximum: f64,
    temperature: f64,
    log_sum: f64,
}

impl LogSoftmax {
    /// The logarithm of the probability that the row's softmax gives to one of its logits.
    pub(crate) fn of<T: Into<f64>>(self, logit: T) -> f64 {
        (logit.into() - self.maximum) / self.temperature - self.log_sum
    }
}

/// Writes the softmax of one row's logits divided by a temperature in place of what `probabilities` held.
///
/// The row's maximum is subtracted before the division: logits that are large together cost no digits, and no temperature
/// above 0 makes a finite row's probabilities NaN. Infinite logits do.
pub(crate) fn softmax_row_at<T: Copy + Into<f64>>(
    row: &[T],
    temperature: f64,
    probabilities: &mut Vec<f64>,
) -> LogSoftmax {
    let maximum = row
        .iter()
        .fold(f64::NEG_INFINITY, |maximum, &logit| maximum.max(logit.into()));
    probabilities.clear();
    probabilities.extend(row.iter().map(|&logit| exp((logit.into() - maximum) / temperature)));
    let sum: f64 = probabilities.iter().sum();
    for probability in probabilities.iter_mut() {
        *probability /= sum;
    }
    LogSoftmax {
        maximum,
        temperature,
        log_sum: ln(sum),
    }
}

/// The softmax of many rows at once, each a column of `[classes, stride]`.
#[derive(Debug, Default)]
pub(super) struct Softmax {
    /// `[classes, stride]`: each `e^(logit - maximum)`.
    pub(super) powers: Vec<f64>,
    /// By column: the sum of its powers.
    pub(super) sums: Vec<f64>,
    /// By column: log-sum-exp.
    pub(super) log_sum_exps: Vec<f64>,
    /// By column: the class of the largest logit, the first one on ties.
    pub(super) best: Vec<f64>,
}

impl Softmax {
    /// What a row of columns is padded to; what the padding holds does not matter.
    pub(super) fn stride(columns: usize) -> usize {
        columns.next_multiple_of(if columns <= FEW { FEW } else { MANY })
    }

    /// Fills everything from `logits`, `[classes, stride]`.
    pub(super) fn of(&mut self, logits: &[f32], stride: usize) {
        if self.powers.len() != logits.len() || self.sums.len() != stride {
            self.powers.resize(logits.len(), 0.0);
            for values in [&mut self.sums, &mut self.log_sum_exps, &mut self.best] {
                values.resize(stride, 0.0);
            }
        }
        softmax(logits, stride, self);
    }

    /// How well a column's row is classified by the logits last given to [`of`](Self::of).
    pub(super) fn score(&self, logits: &[f32], stride: usize, column: usize, label: usize) -> RowScore {
        RowScore {
            loss: self.log_sum_exps[column] - f64::from(logits[label * stride + column]),
            correct: self.best[column] == label as f64,
        }
    }
}

#[inline(always)]
fn softmax_of_columns<const L: usize>(logits: &[f32], stride: usize, start: usize, out: &mut Softmax) {
    let mut maximum = [f64::NEG_INFINITY; L];
    let mut best = [0_f64; L];
    let columns = logits.chunks_exact(stride).zip(out.powers.chunks_exact_mut(stride));
    for (class, (logits, powers)) in columns.enumerate() {
        let (logits, powers) = (&logits[start..][..L], &mut powers[start..][..L]);
        for lane in 0..L {
            let logit = f64::from(logits[lane]);
            powers[lane] = logit;
            let above = logit > maximum[lane];
            maximum[lane] = if above { logit } else { maximum[lane] };
            best[lane] = if above { class as f64 } else { best[lane] };
        }
    }
    let mut sums = [0_f64; L];
    for powers in out.powers.chunks_exact_mut(stride) {
        let powers = &mut powers[start..][..L];
        for lane in 0..L {
            let power = exp(powers[lane] - maximum[lane]);
            powers[lane] = power;
            sums[lane] += power;
        }
    }
    let mut log_sum_exps = [0_f64; L];
    for lane in 0..L {
        let sum = maximum[lane] + ln(sums[lane]);
        log_sum_exps[lane] = if maximum[lane].is_infinite() {
            maximum[lane]
        } else {
            sum
        };
    }
    out.sums[start..][..L].copy_from_slice(&sums);
    out.log_sum_exps[start..][..L].copy_from_slice(&log_sum_exps);
    out.best[start..][..L].copy_from_slice(&best);
}

#[inline(always)]
fn softmax_anywhere(logits: &[f32], stride: usize, out: &mut Softmax) {
    if stride == FEW {
        softmax_of_columns::<FEW>(logits, stride, 0, out);
    }
    for start in (0..stride / MANY).map(|block| block * MANY) {
        softmax_of_columns::<MANY>(logits, stride, start, out);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512dq+avx512vl+avx2+fma", "x86_64+avx2+fma"))]
fn softmax(logits: &[f32], stride: usize, out: &mut Softmax) {
    softmax_anywhere(logits, stride, out);
}

#[cfg(test)]
#[path = "softmax_tests.rs"]
mod tests;
