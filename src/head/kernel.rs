//! The two inner loops of training: logits, and the gradient fused with the weight update.
//!
//! Both are written so that the compiler vectorises them for any target. The order of every sum is fixed by the constants
//! here, not by the machine's vector width, so results are the same on all of them.

/// Partial sums of a dot product.
const LANES: usize = 8;
/// Classes whose dot products with one row are formed together, so that the row is loaded once.
const CLASSES: usize = 4;
/// Columns of a weight row that are updated together, their gradient in a small array; of 16, 32 and 64 the fastest.
const COLUMNS: usize = 64;

/// The dot products of `x` with each of `rows`, all of one length.
#[expect(
    clippy::needless_range_loop,
    reason = "iterators here are not unrolled into registers: five times slower"
)]
fn dots<const N: usize>(x: &[f32], rows: [&[f32]; N]) -> [f32; N] {
    let mut lanes = [[0_f32; LANES]; N];
    let (x_chunks, x_tail) = x.as_chunks::<LANES>();
    let rows = rows.map(|row| row[..x.len()].as_chunks::<LANES>());
    for index in 0..x_chunks.len() {
        let x = x_chunks[index];
        for n in 0..N {
            let w = rows[n].0[index];
            for lane in 0..LANES {
                lanes[n][lane] += x[lane] * w[lane];
            }
        }
    }
    for (lanes, (_, tail)) in lanes.iter_mut().zip(&rows) {
        for ((lane, x), w) in lanes.iter_mut().zip(x_tail).zip(*tail) {
            *lane += x * w;
        }
    }
    lanes.map(|[a, b, c, d, e, f, g, h]| ((a + e) + (c + g)) + ((b + f) + (d + h)))
}

/// Writes the logits of `rows` to `logits` (`[rows, classes]`): `x · Wᵀ + b`, `weight` being `[classes, dim]`.
pub(super) fn logits(weight: &[f32], bias: &[f32], rows: &[&[f32]], logits: &mut [f32]) {
    let classes = bias.len();
    let dim = weight.len() / classes;
    let mut class = 0;
    // Classes outside, rows inside: a few weight rows stay in the first-level cache for the whole batch.
    while class + CLASSES <= classes {
        let block: [&[f32]; CLASSES] = std::array::from_fn(|index| &weight[(class + index) * dim..][..dim]);
        for (row, logits) in rows.iter().zip(logits.chunks_exact_mut(classes)) {
            let sums = dots(row, block);
            for ((logit, sum), bias) in logits[class..].iter_mut().zip(sums).zip(&bias[class..]) {
                *logit = sum + bias;
            }
        }
        class += CLASSES;
    }
    for class in class..classes {
        let block = [&weight[class * dim..][..dim]];
        for (row, logits) in rows.iter().zip(logits.chunks_exact_mut(classes)) {
            let [sum] = dots(row, block);
            logits[class] = sum + bias[class];
        }
    }
}

/// One SGD step as PyTorch's `torch.optim.SGD` defines it, with the constants of this step.
///
/// `g ← g + decay·w`, `v ← momentum·v + gain·g`, `w ← w - rate·v` (Nesterov: `w ← w - rate·(g + momentum·v)`).
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) rate: f32,
    pub(super) decay: f32,
    pub(super) momentum: f32,
    /// `1 - dampening`; 1 in the first step, which sets the velocity to the gradient, and without momentum.
    pub(super) gain: f32,
    pub(super) nesterov: bool,
}

impl Step {
    /// Moves `weight` against `gradient`.
    #[inline(always)]
    pub(super) fn apply(&self, weight: &mut [f32], velocity: &mut [f32], gradient: &[f32]) {
        for ((weight, velocity), gradient) in weight.iter_mut().zip(velocity).zip(gradient) {
            let gradient = gradient + self.decay * *weight;
            *velocity = self.momentum * *velocity + self.gain * gradient;
            let direction = if self.nesterov {
                gradient + self.momentum * *velocity
            } else {
                *velocity
            };
            *weight -= self.rate * direction;
        }
    }

    /// Forms the gradient `Σ residual·row` of one class's weights and applies it, in one pass over the weights.
    pub(super) fn descend(&self, weight: &mut [f32], velocity: &mut [f32], residuals: &[f32], rows: &[&[f32]]) {
        let mut start = 0;
        let (weights, weight_tail) = weight.as_chunks_mut::<COLUMNS>();
        let (velocities, velocity_tail) = velocity.as_chunks_mut::<COLUMNS>();
        for (weight, velocity) in weights.iter_mut().zip(velocities) {
            let mut gradient = [0_f32; COLUMNS];
            for (&residual, row) in residuals.iter().zip(rows) {
                let columns = row[start..]
                    .first_chunk::<COLUMNS>()
                    .expect("rows are as long as the weights");
                for column in 0..COLUMNS {
                    gradient[column] += residual * columns[column];
                }
            }
            self.apply(weight, velocity, &gradient);
            start += COLUMNS;
        }
        let mut gradient = [0_f32; COLUMNS];
        for (&residual, row) in residuals.iter().zip(rows) {
            for (gradient, x) in gradient.iter_mut().zip(&row[start..]) {
                *gradient += residual * x;
            }
        }
        self.apply(weight_tail, velocity_tail, &gradient);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logits_equal_a_plain_sum_for_every_remainder() {
        for dim in [1, 7, 8, 9, 31, 64] {
            for classes in 1..10 {
                let weight: Vec<f32> = (0..classes * dim).map(|i| (i as f32 * 0.37).sin()).collect();
                let bias: Vec<f32> = (0..classes).map(|i| i as f32).collect();
                let x: Vec<f32> = (0..3 * dim).map(|i| (i as f32 * 0.73).cos()).collect();
                let rows: Vec<&[f32]> = x.chunks(dim).collect();
                let mut out = vec![0.0; 3 * classes];
                logits(&weight, &bias, &rows, &mut out);
                for (row, out) in rows.iter().zip(out.chunks(classes)) {
                    for class in 0..classes {
                        let plain: f64 = row
                            .iter()
                            .zip(&weight[class * dim..])
                            .map(|(&a, &b)| f64::from(a * b))
                            .sum();
                        // 64 products of at most 1 in f32: far below 1e-5.
                        assert!(
                            (f64::from(out[class]) - plain - class as f64).abs() < 1e-5,
                            "{dim} {classes}"
                        );
                    }
                }
            }
        }
    }
}
