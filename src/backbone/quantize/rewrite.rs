//! Writes the quantised graph: `QuantizeLinear` and `DequantizeLinear` where the plan says so, and integer weights.
//!
//! The dequantised tensor takes the name of the float one, so that nothing that reads it has to change, and the feature
//! keeps its name.
//!
//! Activations are uint8 and weights int8 ("U8S8") on every processor: x86 has instructions for just that pair (VNNI, and
//! before it `pmaddubsw`), and ONNX Runtime's ARM kernels take it at the same speed as int8 with int8. On x86 two int8 have no
//! kernel: ResNet18 then runs as slowly as in fp32.

use std::collections::HashMap;

use bytes::Bytes;

use super::access::{input, unused_name};
use super::onnx::attribute_proto::AttributeType;
use super::onnx::tensor_proto::DataType;
use super::onnx::{AttributeProto, GraphProto, NodeProto, TensorProto};
use super::plan::{Kind, Plan, Range, Weighted};
use super::weights::{Integers, tensor, tensor_of_floats};
use super::{Statistics, WeightBits, prepare};

/// Integers of activations go from 0 to this.
const LARGEST: f64 = 255.0;

/// The scale and zero point of an activation: `value ≈ scale · (quantized − zero)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Scale {
    pub(super) scale: f32,
    pub(super) zero: u8,
}

impl Scale {
    /// That of values from `low` to `high`, which have zero between them; zero itself is exact.
    pub(super) fn of(low: f32, high: f32) -> Self {
        let span = f64::from(high) - f64::from(low);
        let scale = (span / LARGEST).max(f64::from(f32::MIN_POSITIVE));
        let zero = (-f64::from(low) / scale).round_ties_even().clamp(0.0, LARGEST);
        Self {
            scale: scale as f32,
            zero: zero as u8,
        }
    }
}

/// A scale with the names of the weights that hold it.
#[derive(Debug, Clone)]
struct Named {
    scale: Scale,
    scale_name: String,
    zero_name: String,
}

/// `graph` quantised as `plan` says.
///
/// # Errors
/// Why a tensor has no range.
pub(super) fn rewrite(
    graph: GraphProto,
    plan: &Plan,
    statistics: &Statistics,
    bits: WeightBits,
) -> Result<GraphProto, String> {
    let mut writer = Writer {
        graph,
        plan,
        statistics,
        bits,
        scales: HashMap::new(),
        scale_of: HashMap::new(),
        written: Vec::new(),
    };
    writer.run()?;
    let Writer { mut graph, written, .. } = writer;
    graph.node = written;
    prepare::drop_unread(&mut graph);
    Ok(graph)
}

struct Writer<'a> {
    graph: GraphProto,
    plan: &'a Plan,
    statistics: &'a Statistics,
    bits: WeightBits,
    /// By the tensor whose range it is.
    scales: HashMap<String, Named>,
    /// By the name under which a tensor is read in the new graph.
    scale_of: HashMap<String, Scale>,
    written: Vec<NodeProto>,
}

impl Writer<'_> {
    fn run(&mut self) -> Result<(), String> {
        // An input can't be renamed: what reads it reads its dequantised copy.
        let mut renamed = HashMap::new();
        let inputs: Vec<String> = self.graph.input.iter().map(|value| value.name().to_owned()).collect();
        for name in inputs.into_iter().filter(|name| self.plan.points.contains_key(name)) {
            let copy = self.name(&format!("{name}_dequantized"));
            self.round_trip(&name, &name, &copy)?;
            renamed.insert(name, copy);
        }
        let gone: HashMap<&String, &String> = self.plan.folded.iter().collect();
        let left_out: std::collections::HashSet<&String> = self.plan.folded.values().collect();
        for index in 0..self.graph.node.len() {
            let mut node = self.graph.node[index].clone();
            let Some(output) = node.output.first().cloned() else {
                self.written.push(node);
                continue;
            };
            // The activation itself: its output is written with what comes before it.
            if left_out.contains(&output) {
                continue;
            }
            for name in &mut node.input {
                if let Some(copy) = renamed.get(name) {
                    name.clone_from(copy);
                }
            }
            if let Some(weighted) = self.plan.weighted.get(&index) {
                self.quantize_weights(&mut node, weighted);
            }
            let target = gone.get(&output).map_or(&output, |after| *after).clone();
            if self.plan.points.contains_key(&target) {
                let float = self.name(&format!("{target}_float"));
                node.output[0].clone_from(&float);
                self.written.push(node);
                self.round_trip(&target, &float, &target)?;
            } else {
                self.written.push(node);
            }
        }
        Ok(())
    }

    /// A name that is not in use, and is from now on reserved for whoever asked.
    fn name(&self, wanted: &str) -> String {
        let mut name = unused_name(&self.graph, wanted);
        let written = |name: &str| {
            self.written
                .iter()
                .any(|node| node.output.iter().any(|output| output == name))
        };
        while written(&name) {
            name.push('_');
        }
        name
    }

    /// Writes `from` as integers with the scale of `point`, and back as `to`.
    fn round_trip(&mut self, point: &str, from: &str, to: &str) -> Result<(), String> {
        let named = self.scale(point)?;
        let quantized = self.name(&format!("{point}_quantized"));
        let parameters = |first: &str| vec![first.to_owned(), named.scale_name.clone(), named.zero_name.clone()];
        self.written.push(NodeProto {
            op_type: Some("QuantizeLinear".to_owned()),
            name: Some(format!("{point}_QuantizeLinear")),
            input: parameters(from),
            output: vec![quantized.clone()],
            ..NodeProto::default()
        });
        self.written.push(NodeProto {
            op_type: Some("DequantizeLinear".to_owned()),
            name: Some(format!("{point}_DequantizeLinear")),
            input: parameters(&quantized),
            output: vec![to.to_owned()],
            ..NodeProto::default()
        });
        self.scale_of.insert(to.to_owned(), named.scale);
        Ok(())
    }

    fn scale(&mut self, point: &str) -> Result<Named, String> {
        let of = match self.plan.points.get(point) {
            Some(Range::Of(other)) => other.clone(),
            _ => point.to_owned(),
        };
        if let Some(named) = self.scales.get(&of) {
            return Ok(named.clone());
        }
        let (low, high) = self.statistics.range(&of)?;
        let scale = Scale::of(low, high);
        let named = Named {
            scale,
            scale_name: self.name(&format!("{of}_scale")),
            zero_name: self.name(&format!("{of}_zero_point")),
        };
        self.add(tensor_of_floats(&named.scale_name, &[], &[scale.scale]));
        let zero = Bytes::copy_from_slice(&[scale.zero]);
        self.add(tensor(&named.zero_name, &[], DataType::Uint8, zero));
        self.scales.insert(of, named.clone());
        Ok(named)
    }

    fn add(&mut self, tensor: TensorProto) {
        self.graph.initializer.push(tensor);
    }

    /// Gives `node` integer weights, and a bias where it can have one.
    fn quantize_weights(&mut self, node: &mut NodeProto, weighted: &Weighted) {
        let read = node.input[0].clone();
        let scale = self
            .scale_of
            .get(&read)
            .expect("what a weighted operator reads is a point");
        let means = match weighted.kind {
            // It has no bias that could be corrected.
            Kind::MatMul => Vec::new(),
            // The float input's statistics are under the name it has in the float graph.
            _ => self.statistics.means(&self.float_name(&read)),
        };
        let integers = Integers::of(weighted, scale.scale, &means, self.bits);
        let input_scale = scale.scale;
        let axis = weighted.axis();
        let channels = i64::try_from(weighted.channels).expect("an axis of a tensor");
        let base = input(node, 1).unwrap_or_default().to_owned();
        let bytes = integers.weight.iter().map(|&value| value.cast_unsigned());
        let zeros = Bytes::from(vec![0; weighted.channels]);
        node.input[1] = self.dequantized(
            &base,
            axis,
            tensor("", &weighted.dims, DataType::Int8, Bytes::from_iter(bytes)),
            tensor_of_floats("", &[channels], &integers.scale),
            tensor("", &[channels], DataType::Int8, zeros),
        );
        if weighted.kind == Kind::MatMul {
            return;
        }
        let base = input(node, 2).map_or_else(|| format!("{base}_bias"), str::to_owned);
        let bytes = integers.bias.iter().flat_map(|value| value.to_le_bytes());
        let scales: Vec<f32> = integers.scale.iter().map(|scale| scale * input_scale).collect();
        let zeros = Bytes::from(vec![0; 4 * weighted.channels]);
        let bias = self.dequantized(
            &base,
            0,
            tensor("", &[channels], DataType::Int32, Bytes::from_iter(bytes)),
            tensor_of_floats("", &[channels], &scales),
            tensor("", &[channels], DataType::Int32, zeros),
        );
        node.input.resize(3, String::new());
        node.input[2] = bias;
    }

    /// The name in the float graph of what is read as `name`.
    fn float_name(&self, name: &str) -> String {
        let copy = name.strip_suffix("_dequantized");
        match copy {
            Some(input) if self.graph.input.iter().any(|value| value.name() == input) => input.to_owned(),
            _ => name.to_owned(),
        }
    }

    /// Writes the node that gives `values · scales` along `axis`, and returns the name of what it gives.
    fn dequantized(
        &mut self,
        base: &str,
        axis: i64,
        values: TensorProto,
        scales: TensorProto,
        zeros: TensorProto,
    ) -> String {
        let mut inputs = Vec::new();
        for (part, tensor) in [("quantized", values), ("scale", scales), ("zero_point", zeros)] {
            let name = self.name(&format!("{base}_{part}"));
            self.add(TensorProto {
                name: Some(name.clone()),
                ..tensor
            });
            inputs.push(name);
        }
        let output = self.name(&format!("{base}_dequantized"));
        self.written.push(NodeProto {
            op_type: Some("DequantizeLinear".to_owned()),
            name: Some(format!("{output}_DequantizeLinear")),
            input: inputs,
            output: vec![output.clone()],
            attribute: vec![AttributeProto {
                name: Some("axis".to_owned()),
                r#type: Some(AttributeType::Int as i32),
                i: Some(axis),
                ..AttributeProto::default()
            }],
            ..NodeProto::default()
        });
        output
    }
}
