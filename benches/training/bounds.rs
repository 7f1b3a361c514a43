//! What the machine could do at best: bytes read and multiply-adds done in a second, by all cores.

use std::hint::black_box;
use std::time::Instant;

use multiversion::multiversion;

/// Numbers that are worked on together: a whole vector of the widest kind, and several of narrower ones.
const LANES: usize = 16;
const ROUNDS: usize = 5;

/// Bytes a second at which `threads` threads read `values` from the memory, each its share and in order; the best of several.
pub(crate) fn bandwidth(values: &[f32], threads: usize) -> f64 {
    let share = values.len().div_ceil(threads);
    let read = || {
        let start = Instant::now();
        std::thread::scope(|scope| {
            for part in values.chunks(share) {
                scope.spawn(|| black_box(sum(part)));
            }
        });
        size_of_val(values) as f64 / start.elapsed().as_secs_f64()
    };
    (0..ROUNDS).map(|_| read()).fold(0.0, f64::max)
}

/// Floating-point operations a second of `threads` threads that only multiply and add in registers; the best of several.
///
/// A fused multiply-add, where the processor has it, counts as two operations.
pub(crate) fn arithmetic(threads: usize) -> f64 {
    const STEPS: usize = 4_000_000;
    let run = |chains: usize, work: fn(usize, (f32, f32), bool) -> f32| {
        let fused = fused();
        let start = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| black_box(work(STEPS, black_box((0.999, 0.001)), fused)));
            }
        });
        (2 * threads * STEPS * chains * LANES) as f64 / start.elapsed().as_secs_f64()
    };
    // Eight chains hide the latency of two units; where they do not fit into the registers, six are faster.
    (0..ROUNDS)
        .map(|_| run(8, eight_chains).max(run(6, six_chains)))
        .fold(0.0, f64::max)
}

/// What the operations were done with.
pub(crate) fn instructions() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        match (
            is_x86_feature_detected!("avx512f"),
            is_x86_feature_detected!("avx2"),
            fused(),
        ) {
            (true, _, true) => "AVX-512, fused multiply-add",
            (false, true, true) => "AVX2, fused multiply-add",
            (false, true, false) => "AVX2, multiplication and addition",
            _ => "SSE2, multiplication and addition",
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    if fused() {
        "the compiler's vectors, fused multiply-add"
    } else {
        "the compiler's vectors, multiplication and addition"
    }
}

/// Whether the processor has a fused multiply-add; without, it would be a call.
fn fused() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("fma") && is_x86_feature_detected!("avx2")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cfg!(target_arch = "aarch64")
    }
}

#[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "x86_64+avx2"))]
fn sum(values: &[f32]) -> f32 {
    let mut sums = [[0_f32; LANES]; 4];
    let (blocks, _) = values.as_chunks::<{ 4 * LANES }>();
    for block in blocks {
        for chain in 0..4 {
            for lane in 0..LANES {
                sums[chain][lane] += block[chain * LANES + lane];
            }
        }
    }
    sums.as_flattened().iter().sum()
}

/// One step of one chain.
#[inline(always)]
fn multiply_add(values: &mut [f32; LANES], (factor, term): (f32, f32), fused: bool) {
    for value in values {
        *value = if fused {
            value.mul_add(factor, term)
        } else {
            *value * factor + term
        };
    }
}

/// A function of chains that do not wait for each other, each in variables of its own, so that they stay in registers.
macro_rules! chains {
    ($name:ident: $($chain:ident)*) => {
        #[multiversion(targets("x86_64+avx512f+avx512vl+avx2+fma", "x86_64+avx2+fma", "x86_64+avx2"))]
        fn $name(steps: usize, numbers: (f32, f32), fused: bool) -> f32 {
            $(let mut $chain = [1_f32; LANES];)*
            if fused {
                for _ in 0..steps {
                    $(multiply_add(&mut $chain, numbers, true);)*
                }
            } else {
                for _ in 0..steps {
                    $(multiply_add(&mut $chain, numbers, false);)*
                }
            }
            [$($chain),*].as_flattened().iter().sum()
        }
    };
}

chains!(six_chains: a b c d e f);
chains!(eight_chains: a b c d e f g h);
