//! Weights as 8-bit integers, one scale for each output channel, and biases as 32-bit integers.

use bytes::Bytes;

use super::onnx::TensorProto;
use super::onnx::tensor_proto::DataType;
use super::{WeightBits, plan::Weighted};

/// Biases keep this far from the ends of 32 bits, so that the sum of products fits beside them.
const LARGEST_BIAS: f64 = (1_u32 << 30) as f64;

/// The step of a channel that is all zeros; its product with an input's step is no subnormal number.
const SMALLEST_STEP: f32 = 1e-20;

/// The values of an f32 tensor; `None` if it is none, or its data are not here.
pub(super) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type() != DataType::Float as i32 {
        return None;
    }
    let count = tensor
        .dims
        .iter()
        .try_fold(1_usize, |count, &dim| count.checked_mul(usize::try_from(dim).ok()?))?;
    let values: Vec<f32> = match tensor.raw_data.as_deref() {
        Some(raw) => {
            let (values, []) = raw.as_chunks::<4>() else {
                return None;
            };
            values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        }
        None => tensor.float_data.clone(),
    };
    (values.len() == count).then_some(values)
}

/// A weight of f32.
pub(super) fn tensor_of_floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    let bytes = values.iter().flat_map(|value| value.to_le_bytes());
    tensor(name, dims, DataType::Float, Bytes::from_iter(bytes))
}

/// A weight of the given type, little-endian.
pub(super) fn tensor(name: &str, dims: &[i64], element: DataType, bytes: Bytes) -> TensorProto {
    TensorProto {
        dims: dims.to_vec(),
        data_type: Some(element as i32),
        raw_data: Some(bytes),
        name: Some(name.to_owned()),
        ..TensorProto::default()
    }
}

/// An operator's weights in integers: `weight ≈ scale · quantized`, `bias ≈ scale · input scale · quantized bias`.
pub(super) struct Integers {
    /// One for each output channel.
    pub(super) scale: Vec<f32>,
    /// In the order of the float weights.
    pub(super) weight: Vec<i8>,
    /// One for each output channel.
    pub(super) bias: Vec<i32>,
}

impl Integers {
    /// Rounds the weights of one operator whose input has the scale `input_scale`.
    ///
    /// Rounding shifts each output by `Σ (quantized − weight)·x`, on average by that of the mean input, which is taken off
    /// the bias ("bias correction": Nagel et al. 2019, "Data-Free Quantization", section 4.2, with measured means).
    /// `means`: of each input channel; empty for no correction.
    pub(super) fn of(weighted: &Weighted, input_scale: f32, means: &[f64], bits: WeightBits) -> Self {
        let channels = weighted.channels;
        let largest = bits.largest();
        let mut scale = Vec::with_capacity(channels);
        let mut bias = Vec::with_capacity(channels);
        let mut weight = vec![0; weighted.weight.len()];
        for channel in 0..channels {
            let peak = weighted
                .places(channel)
                .map(|place| weighted.weight[place].abs())
                .fold(0.0, f32::max);
            // A channel that is nothing but its bias must still be able to hold that.
            let for_bias = (f64::from(weighted.bias[channel].abs()) / (f64::from(input_scale) * LARGEST_BIAS)) as f32;
            let step = (peak / f32::from(largest)).max(for_bias).max(SMALLEST_STEP);
            let mut shift = 0.0;
            for (number, place) in weighted.places(channel).enumerate() {
                let exact = weighted.weight[place];
                let rounded = (exact / step)
                    .round_ties_even()
                    .clamp(-f32::from(largest), f32::from(largest));
                weight[place] = rounded as i8;
                if let Some(mean) = means.get(weighted.input_channel(channel, number)) {
                    shift += (f64::from(rounded) * f64::from(step) - f64::from(exact)) * mean;
                }
            }
            let bias_step = f64::from(step) * f64::from(input_scale);
            let corrected = (f64::from(weighted.bias[channel]) - shift) / bias_step;
            scale.push(step);
            bias.push(
                corrected
                    .round_ties_even()
                    .clamp(-2.0 * LARGEST_BIAS, 2.0 * LARGEST_BIAS - 1.0) as i32,
            );
        }
        Self { scale, weight, bias }
    }
}
