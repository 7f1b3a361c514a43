//! A quantised network as ONNX Runtime runs it, against integer arithmetic written out here.

use std::collections::HashMap;

use super::super::WeightBits;
use super::super::rewrite::Scale;
use super::{CHANNELS, PICTURE, SIDE, features, graph_of, pictures, residual, written};
use crate::backbone::onnx::TensorProto;

/// A `[channels, side, side]` map of integers with its scale, for the arithmetic below.
#[derive(Clone)]
struct Map {
    values: Vec<i32>,
    side: usize,
    scale: Scale,
}

impl Map {
    fn real(&self) -> Vec<f64> {
        let of = |value: &i32| f64::from(*value - i32::from(self.scale.zero)) * f64::from(self.scale.scale);
        self.values.iter().map(of).collect()
    }
}

/// What a quantised file says, read from its bytes.
struct File {
    tensors: HashMap<String, TensorProto>,
}

impl File {
    fn bytes(&self, name: &str) -> &[u8] {
        self.tensors[name].raw_data.as_deref().unwrap()
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        let bytes = self.bytes(name).as_chunks::<4>().0;
        bytes.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
    }

    fn scale(&self, tensor: &str) -> Scale {
        Scale {
            scale: self.floats(&format!("{tensor}_scale"))[0],
            zero: self.bytes(&format!("{tensor}_zero_point"))[0],
        }
    }

    fn quantize(&self, real: &[f64], side: usize, tensor: &str) -> Map {
        let scale = self.scale(tensor);
        let to = |value: &f64| {
            let places = (value / f64::from(scale.scale)).round_ties_even() as i32;
            (places + i32::from(scale.zero)).clamp(0, 255)
        };
        Map {
            values: real.iter().map(to).collect(),
            side,
            scale,
        }
    }

    /// A convolution in integers alone: products and biases in 32 bits, scaled once at the end.
    fn convolution(&self, name: &str, input: &Map, output: &str) -> Map {
        let side = input.side as i32;
        let weights = self.bytes(&format!("{name}.weight_quantized"));
        let scales = self.floats(&format!("{name}.weight_scale"));
        let biases = self.bytes(&format!("{name}.bias_quantized")).as_chunks::<4>().0;
        let inputs = input.values.len() / (input.side * input.side);
        let kernel = ((weights.len() / inputs / scales.len()) as f64).sqrt() as i32;
        let mut real = Vec::new();
        for (channel, scale) in scales.iter().enumerate() {
            for (y, x) in (0..side).flat_map(|y| (0..side).map(move |x| (y, x))) {
                let mut sum = i32::from_le_bytes(biases[channel]);
                for from in 0..inputs {
                    for (dy, dx) in (0..kernel).flat_map(|dy| (0..kernel).map(move |dx| (dy, dx))) {
                        let (row, column) = (y + dy - kernel / 2, x + dx - kernel / 2);
                        if (0..side).contains(&row) && (0..side).contains(&column) {
                            let place = ((channel * inputs + from) as i32 * kernel + dy) * kernel + dx;
                            let weight = i32::from(weights[place as usize].cast_signed());
                            let value = input.values[from * input.side * input.side + (row * side + column) as usize];
                            sum += weight * (value - i32::from(input.scale.zero));
                        }
                    }
                }
                real.push(f64::from(sum) * f64::from(*scale) * f64::from(input.scale.scale));
            }
        }
        self.quantize(&real, input.side, output)
    }
}

fn pooled(map: &Map) -> Map {
    let (side, half) = (map.side, map.side / 2);
    let mut values = Vec::new();
    for plane in map.values.chunks(side * side) {
        for (y, x) in (0..half).flat_map(|y| (0..half).map(move |x| (y, x))) {
            let corner = 2 * y * side + 2 * x;
            let places = [corner, corner + 1, corner + side, corner + side + 1];
            values.push(places.iter().map(|&place| plane[place]).max().unwrap());
        }
    }
    Map {
        values,
        side: half,
        scale: map.scale,
    }
}

#[test]
fn a_residual_block_computes_what_integers_compute() {
    let onnx = written(&residual(), WeightBits::Eight);
    let file = File {
        tensors: graph_of(&onnx)
            .initializer
            .into_iter()
            .map(|tensor| (tensor.name().to_owned(), tensor))
            .collect(),
    };
    let pictures = pictures(5, 7);
    let found = features(&onnx, &pictures);
    let length: usize = PICTURE.iter().product();
    let mut worst = 0.0_f64;
    for (picture, found) in pictures.chunks(length).zip(found.chunks(CHANNELS)) {
        let real: Vec<f64> = picture.iter().map(|&value| f64::from(value)).collect();
        let stem = file.convolution("stem", &file.quantize(&real, SIDE, "x"), "stem_relu");
        let pool = pooled(&stem);
        let first = file.convolution("first", &pool, "first_relu");
        let second = file.convolution("second", &first, "second");
        let sum: Vec<f64> = second.real().iter().zip(pool.real()).map(|(a, b)| a + b).collect();
        let sum = file.quantize(&sum, pool.side, "sum_relu");
        let last = file.convolution("last", &sum, "last");
        // The end is float: nothing that multiplies reads it.
        let end: Vec<f64> = last
            .real()
            .iter()
            .zip(sum.real())
            .map(|(a, b)| (a + b).max(0.0))
            .collect();
        let places = pool.side * pool.side;
        for (plane, &found) in end.chunks(places).zip(found) {
            let mean = plane.iter().sum::<f64>() / places as f64;
            worst = worst.max((mean - f64::from(found)).abs() / f64::from(last.scale.scale));
        }
    }
    // Kernels round halves in f32: now and then an integer is its neighbour, which 16 places average out.
    assert!(worst < 0.2, "{worst} steps of the last tensor");
}
