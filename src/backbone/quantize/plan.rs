//! Decides which tensors of a graph become integers.
//!
//! Convolutions and matrix products with constant weights, here called *weighted*, are what int8 makes faster. Their inputs
//! become integers, and what lies between two of them stays integers where ONNX Runtime has kernels for it: sums, pools,
//! concatenations. What no weighted operator reads, such as the last sum and the average that the feature is, stays float:
//! it costs next to nothing and the feature is not rounded once more. A `Relu` or `Clip` is done by the ends of the range
//! that its output has, and is left out.

use std::collections::{HashMap, HashSet};

use super::access::{input, int, operator};
use super::onnx::{GraphProto, NodeProto, TensorProto};
use super::weights::floats;

/// What is to be done to a graph.
#[derive(Debug)]
pub(super) struct Plan {
    /// Operators that get integer weights, by the index of their node.
    pub(super) weighted: HashMap<usize, Weighted>,
    /// Tensors that become integers, by the name they have in the float graph.
    pub(super) points: HashMap<String, Range>,
    /// Activations that are left out: the tensor before them, and the one that takes its place.
    pub(super) folded: HashMap<String, String>,
    /// Tensors whose values must be known, each once, in the order of the graph.
    pub(super) observed: Vec<String>,
}

/// Where the range of a tensor comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Range {
    /// From its own values.
    Own,
    /// It holds no value that this one does not hold: it has its scale.
    Of(String),
}

/// Which weighted operator a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `Conv` in two dimensions; the output channels are the weight's first axis.
    Convolution,
    /// `Gemm` without factors; with `transB` the output channels are the weight's first axis, without its second.
    Product {
        /// `transB`.
        transposed: bool,
    },
    /// `MatMul` by a matrix, which has no bias; the output channels are the weight's second axis.
    MatMul,
}

/// A convolution or matrix product with its float weights.
#[derive(Debug)]
pub(super) struct Weighted {
    pub(super) kind: Kind,
    pub(super) dims: Vec<i64>,
    pub(super) weight: Vec<f32>,
    /// One for each output channel; zeros where there is none.
    pub(super) bias: Vec<f32>,
    /// Output channels.
    pub(super) channels: usize,
    /// Groups of channels that do not see each other.
    groups: usize,
}

impl Weighted {
    fn of(node: &NodeProto, weights: &HashMap<&str, &TensorProto>) -> Option<Self> {
        let tensor = |index: usize| input(node, index).and_then(|name| weights.get(name).copied());
        let weight = tensor(1)?;
        let dims = weight.dims.clone();
        let length = |axis: usize| usize::try_from(dims[axis]).ok();
        let one = |name: &str| {
            let factor = super::access::attribute(node, name).and_then(|attribute| attribute.f);
            factor.is_none_or(|factor| (factor - 1.0).abs() < f32::EPSILON)
        };
        let (kind, channels) = match operator(node) {
            "Conv" if dims.len() == 4 => (Kind::Convolution, length(0)?),
            "Gemm" if dims.len() == 2 && one("alpha") && one("beta") && int(node, "transA").unwrap_or(0) == 0 => {
                let transposed = int(node, "transB").unwrap_or(0) != 0;
                (Kind::Product { transposed }, length(usize::from(!transposed))?)
            }
            "MatMul" if dims.len() == 2 => (Kind::MatMul, length(1)?),
            _ => return None,
        };
        // What it multiplies must be computed, or there is nothing to calibrate.
        if tensor(0).is_some() || channels == 0 {
            return None;
        }
        let bias = match input(node, 2) {
            None => vec![0.0; channels],
            Some(_) => {
                let bias = floats(tensor(2)?)?;
                match bias.len() {
                    1 => vec![bias[0]; channels],
                    length if length == channels => bias,
                    _ => return None,
                }
            }
        };
        let weight = floats(weight)?;
        let all = weight.iter().chain(&bias);
        (all.clone().count() > channels && all.clone().all(|value| value.is_finite())).then_some(Self {
            kind,
            dims,
            weight,
            bias,
            channels,
            groups: usize::try_from(int(node, "group").unwrap_or(1)).ok()?.max(1),
        })
    }

    /// The axis of the weight that counts output channels.
    pub(super) fn axis(&self) -> i64 {
        match self.kind {
            Kind::Convolution | Kind::Product { transposed: true } => 0,
            Kind::Product { transposed: false } | Kind::MatMul => 1,
        }
    }

    /// Where the weights of one output channel lie.
    pub(super) fn places(&self, channel: usize) -> impl Iterator<Item = usize> + use<> {
        let per_channel = self.weight.len() / self.channels;
        let (start, step) = match self.axis() {
            0 => (channel * per_channel, 1),
            _ => (channel, self.channels),
        };
        (0..per_channel).map(move |number| start + number * step)
    }

    /// The input channel that weight `number` of output channel `channel` is multiplied with.
    pub(super) fn input_channel(&self, channel: usize, number: usize) -> usize {
        match self.kind {
            Kind::Convolution => {
                let taps = usize::try_from(self.dims[2] * self.dims[3]).unwrap_or(1).max(1);
                let inputs = usize::try_from(self.dims[1]).unwrap_or(1);
                let group = channel / (self.channels / self.groups).max(1);
                group * inputs + number / taps
            }
            Kind::Product { .. } | Kind::MatMul => number,
        }
    }
}

impl Plan {
    /// What to do to `graph`, whose input is `graph_input` and whose output `feature`.
    pub(super) fn of(graph: &GraphProto, graph_input: &str, feature: &str) -> Self {
        let weights: HashMap<&str, &TensorProto> =
            graph.initializer.iter().map(|tensor| (tensor.name(), tensor)).collect();
        let weighted: HashMap<usize, Weighted> = graph
            .node
            .iter()
            .enumerate()
            .filter_map(|(index, node)| Some((index, Weighted::of(node, &weights)?)))
            .collect();
        let wanted = wanted(graph, &weighted, &weights);
        let folded = folded(graph, &weighted, &weights, &wanted, feature);

        let mut points = HashMap::new();
        let mut observed = Vec::new();
        if wanted.contains(graph_input) {
            points.insert(graph_input.to_owned(), Range::Own);
            observed.push(graph_input.to_owned());
        }
        for (index, node) in graph.node.iter().enumerate() {
            let Some(output) = node.output.first().filter(|output| !output.is_empty()) else {
                continue;
            };
            let is_convolution = weighted
                .get(&index)
                .is_some_and(|weighted| weighted.kind == Kind::Convolution);
            let output = match folded.get(output) {
                Some(after) => after,
                // Its place was taken when the tensor before it came.
                None if points.contains_key(output) => continue,
                None if is_convolution || wanted.contains(output) => output,
                None => continue,
            };
            let range = match keeps_values(node).then(|| input(node, 0)).flatten() {
                Some(before) if points.contains_key(before) => Range::Of(root(&points, before)),
                _ => Range::Own,
            };
            if range == Range::Own {
                observed.push(output.clone());
            }
            points.insert(output.clone(), range);
        }
        // The means of what weighted operators read correct their biases.
        for (index, node) in graph.node.iter().enumerate() {
            if weighted.contains_key(&index) && !observed.contains(&node.input[0]) {
                observed.push(node.input[0].clone());
            }
        }
        Self {
            weighted,
            points,
            folded,
            observed,
        }
    }
}

/// The tensor whose scale `name` has.
fn root(points: &HashMap<String, Range>, name: &str) -> String {
    match points.get(name) {
        Some(Range::Of(before)) => before.clone(),
        _ => name.to_owned(),
    }
}

/// The tensors that should be integers for the sake of weighted operators behind them.
fn wanted(
    graph: &GraphProto,
    weighted: &HashMap<usize, Weighted>,
    weights: &HashMap<&str, &TensorProto>,
) -> HashSet<String> {
    let mut wanted: HashSet<String> = HashSet::new();
    for (index, node) in graph.node.iter().enumerate().rev() {
        if weighted.contains_key(&index) {
            wanted.insert(node.input[0].clone());
        } else if node.output.iter().any(|output| wanted.contains(output)) && carries(node, weights) {
            let data = match operator(node) {
                "Add" | "Concat" => node.input.len(),
                _ => 1,
            };
            wanted.extend(node.input[..data].iter().cloned());
        }
    }
    wanted.retain(|name| !weights.contains_key(name.as_str()));
    wanted
}

/// Whether there is an integer kernel for `node`, or none is needed.
fn carries(node: &NodeProto, weights: &HashMap<&str, &TensorProto>) -> bool {
    let computed = || node.input.iter().all(|name| !weights.contains_key(name.as_str()));
    match operator(node) {
        "Relu" | "Clip" | "GlobalAveragePool" | "AveragePool" => true,
        "Add" => node.input.len() == 2 && computed(),
        "Concat" => computed(),
        _ => keeps_values(node),
    }
}

/// Whether the output holds no value that the first input does not hold.
fn keeps_values(node: &NodeProto) -> bool {
    match operator(node) {
        "MaxPool" => node.output.len() == 1,
        "Flatten" | "Reshape" | "Transpose" | "Squeeze" | "Unsqueeze" => true,
        _ => false,
    }
}

/// The activations that the range of their output stands for: what is before each, and its output.
fn folded(
    graph: &GraphProto,
    weighted: &HashMap<usize, Weighted>,
    weights: &HashMap<&str, &TensorProto>,
    wanted: &HashSet<String>,
    feature: &str,
) -> HashMap<String, String> {
    let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
    let mut read_inside: HashSet<&str> = HashSet::new();
    for node in &graph.node {
        for name in &node.input {
            readers.entry(name).or_default().push(node);
        }
        for inner in super::access::subgraphs(node).flat_map(|inner| &inner.node) {
            read_inside.extend(inner.input.iter().map(String::as_str));
        }
    }
    let of = |(index, node): (usize, &NodeProto)| {
        let output = node.output.first()?;
        let kind = weighted.get(&index).map(|weighted| weighted.kind);
        let [reader] = readers.get(output.as_str())?.as_slice() else {
            return None;
        };
        let after = reader.output.first()?;
        let becomes_integers = kind == Some(Kind::Convolution) || wanted.contains(after);
        let can = (kind.is_some() || operator(node) == "Add" && carries(node, weights))
            && output != feature
            && !read_inside.contains(output.as_str());
        let bounded = match operator(reader) {
            "Relu" => true,
            "Clip" => holds_zero(reader, weights),
            _ => false,
        };
        (can && becomes_integers && bounded).then(|| (output.clone(), after.clone()))
    };
    graph.node.iter().enumerate().filter_map(of).collect()
}

/// Whether the bounds of a `Clip` are known and have zero between them, as a range of integers has.
fn holds_zero(clip: &NodeProto, weights: &HashMap<&str, &TensorProto>) -> bool {
    let bound = |index: usize, none: f32| match input(clip, index) {
        None => Some(none),
        Some(name) => floats(weights.get(name)?)?.first().copied(),
    };
    let (low, high) = (bound(1, f32::NEG_INFINITY), bound(2, f32::INFINITY));
    low.is_some_and(|low| low <= 0.0) && high.is_some_and(|high| high >= 0.0)
}
