//! As much shape inference as the surgery needs: ranks, channel counts, and which axis counts the pictures.
//!
//! It answers "is this surely so?" and says unknown wherever it is not sure. Spatial sizes are not computed; full
//! inference is ONNX Runtime's business.

use std::collections::HashMap;

use super::access::{element, input, int, ints, operator, real_inputs, small_ints, subgraphs, tensor_type};
use super::dims::{Dim, add, agree, broadcast, flatten, matmul, position, positions, reshape, with_tail};
use super::onnx::tensor_proto::DataType;
use super::onnx::tensor_shape_proto::dimension::Value as DimensionValue;
use super::onnx::{GraphProto, NodeProto, TensorProto, ValueInfoProto};

/// What is known of a tensor.
#[derive(Debug, Clone, Default)]
pub(super) struct Tensor {
    /// `None`: not even the rank is known.
    pub(super) shape: Option<Vec<Dim>>,
    pub(super) element: Option<DataType>,
    /// Made of weights alone, the same for every picture.
    pub(super) constant: bool,
    /// The values of a small constant integer tensor.
    pub(super) ints: Option<Vec<i64>>,
}

/// What is known of a graph's tensors after the nodes that were [visited](Shapes::visit).
pub(super) struct Shapes {
    tensors: HashMap<String, Tensor>,
    /// What the file itself says of its tensors; believed only where nothing better is known.
    declared: HashMap<String, Tensor>,
}

impl Shapes {
    /// Starts with the weights and inputs of `graph`; call [`visit`](Self::visit) on its nodes in order.
    pub(super) fn begin(graph: &GraphProto) -> Self {
        let first = real_inputs(graph).find_map(batch_dim);
        let fixed = match first {
            Some(DimensionValue::DimValue(batch)) => Some(*batch),
            _ => None,
        };
        let symbol = match first {
            Some(DimensionValue::DimParam(symbol)) if !symbol.is_empty() => Some(symbol.as_str()),
            _ => None,
        };
        let describe = |value: &ValueInfoProto| (value.name().to_owned(), declared(value, fixed, symbol));
        let mut tensors: HashMap<String, Tensor> = real_inputs(graph)
            .map(|value| {
                let (name, mut tensor) = describe(value);
                if let Some(dim) = tensor.shape.as_mut().and_then(|shape| shape.first_mut()) {
                    *dim = Dim::Batch;
                }
                (name, tensor)
            })
            .collect();
        tensors.extend(
            graph
                .initializer
                .iter()
                .map(|tensor| (tensor.name().to_owned(), constant(tensor))),
        );
        let declared = graph.value_info.iter().chain(&graph.output).map(describe).collect();
        Self { tensors, declared }
    }

    /// A constant integer vector that was not in the graph at the beginning.
    pub(super) fn add_ints(&mut self, name: &str, values: Vec<i64>) {
        let shape = i64::try_from(values.len()).ok().map(|length| vec![Dim::Known(length)]);
        let tensor = Tensor {
            shape,
            element: Some(DataType::Int64),
            constant: true,
            ints: Some(values),
        };
        self.tensors.insert(name.to_owned(), tensor);
    }

    /// All of `graph`.
    pub(super) fn of(graph: &GraphProto) -> Self {
        let mut shapes = Self::begin(graph);
        for node in &graph.node {
            shapes.visit(node);
        }
        shapes
    }

    pub(super) fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(super) fn shape(&self, name: &str) -> Option<&[Dim]> {
        self.get(name)?.shape.as_deref()
    }

    /// The fixed lengths of a constant: a weight, or something computed of weights alone.
    pub(super) fn constant_dims(&self, name: &str) -> Option<Vec<i64>> {
        let tensor = self.get(name).filter(|tensor| tensor.constant)?;
        let known = |dim: &Dim| match dim {
            Dim::Known(length) => Some(*length),
            _ => None,
        };
        tensor.shape.as_ref()?.iter().map(known).collect()
    }

    /// Works out the outputs of `node`, whose inputs must have been visited.
    pub(super) fn visit(&mut self, node: &NodeProto) {
        let first = self.first_output(node);
        for (index, name) in node.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            let mut tensor = match (index, operator(node)) {
                (0, _) | (_, "Split") => first.clone(),
                _ => Tensor {
                    constant: first.constant,
                    ..Tensor::default()
                },
            };
            if let Some(declared) = self.declared.get(name) {
                tensor.element = tensor.element.or(declared.element);
                tensor.shape = match (tensor.shape, &declared.shape) {
                    (Some(mut shape), Some(said)) if shape.len() == said.len() => {
                        for (dim, said) in shape.iter_mut().zip(said).filter(|(dim, _)| **dim == Dim::Unknown) {
                            *dim = *said;
                        }
                        Some(shape)
                    }
                    (shape @ Some(_), _) => shape,
                    (None, said) => said.clone(),
                };
            }
            self.tensors.insert(name.clone(), tensor);
        }
    }

    fn first_output(&self, node: &NodeProto) -> Tensor {
        let operator = operator(node);
        let of = |index| input(node, index).and_then(|name| self.get(name));
        if operator == "Constant" {
            return constant_node(node);
        }
        let random = operator.starts_with("Random") || matches!(operator, "Bernoulli" | "Multinomial" | "");
        let mut named = node.input.iter().filter(|name| !name.is_empty()).peekable();
        let constant = named.peek().is_some()
            && named.all(|name| self.get(name).is_some_and(|tensor| tensor.constant))
            && !random
            && subgraphs(node).next().is_none();
        let element = match operator {
            "" => None,
            "Cast" => int(node, "to").and_then(|code| element(i32::try_from(code).ok()?)),
            "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" => Some(DataType::Int64),
            "DequantizeLinear" | "Where" => of(1).and_then(|tensor| tensor.element),
            "QuantizeLinear" => of(2).map_or(Some(DataType::Uint8), |zero| zero.element),
            _ if same_type(operator) => of(0).and_then(|tensor| tensor.element),
            _ => None,
        };
        let ints = match operator {
            "Identity" => of(0).and_then(|tensor| tensor.ints.clone()),
            _ => None,
        };
        Tensor {
            shape: self.output_shape(node, operator),
            element,
            constant,
            ints,
        }
    }

    fn output_shape(&self, node: &NodeProto, operator: &str) -> Option<Vec<Dim>> {
        let shape = |index| input(node, index).and_then(|name| self.shape(name));
        let values = |index| input(node, index).and_then(|name| self.get(name)?.ints.as_deref());
        // Axes moved from an attribute to an input as the standard grew.
        let axes = || ints(node, "axes").or_else(|| values(1));
        match operator {
            _ if keeps_shape(operator) => shape(0).map(<[Dim]>::to_vec),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Max" | "Min" | "Sum" | "Mean" | "Where" => {
                let mut joined = shape(0)?.to_vec();
                for index in 1..node.input.len() {
                    joined = broadcast(&joined, shape(index)?);
                }
                Some(joined)
            }
            "Conv" | "ConvTranspose" => {
                let mut out = vec![Dim::Unknown; shape(0).or(shape(1))?.len()];
                *out.first_mut()? = *shape(0)?.first()?;
                if operator == "Conv" {
                    *out.get_mut(1)? = shape(1)
                        .and_then(|weight| weight.first())
                        .copied()
                        .unwrap_or(Dim::Unknown);
                }
                Some(out)
            }
            "MaxPool" | "AveragePool" | "LpPool" => with_tail(shape(0)?, Dim::Unknown),
            "GlobalAveragePool" | "GlobalMaxPool" | "GlobalLpPool" => with_tail(shape(0)?, Dim::Known(1)),
            "Flatten" => Some(flatten(shape(0), int(node, "axis").unwrap_or(1))),
            "Gemm" => {
                let side = |shape: Option<&[Dim]>, axis: usize| {
                    shape.and_then(|shape| shape.get(axis)).copied().unwrap_or(Dim::Unknown)
                };
                let transposed = |name| usize::from(int(node, name).unwrap_or(0) != 0);
                Some(vec![
                    side(shape(0), transposed("transA")),
                    side(shape(1), 1 - transposed("transB")),
                ])
            }
            "MatMul" => matmul(shape(0)?, shape(1)?),
            "Reshape" => reshape(shape(0), values(1), shape(1)),
            "Transpose" => {
                let from = shape(0)?;
                match ints(node, "perm").filter(|perm| !perm.is_empty()) {
                    Some(perm) => perm
                        .iter()
                        .map(|&axis| from.get(usize::try_from(axis).ok()?).copied())
                        .collect(),
                    None => Some(from.iter().rev().copied().collect()),
                }
            }
            "Concat" => {
                let mut joined = shape(0)?.to_vec();
                let axis = position(int(node, "axis")?, joined.len())?;
                for index in 1..node.input.len() {
                    let other = shape(index)?;
                    let pairs = joined.iter_mut().zip(other).enumerate();
                    for (at, (dim, other)) in pairs {
                        *dim = if at == axis {
                            add(*dim, *other)
                        } else {
                            agree(*dim, *other)
                        };
                    }
                }
                Some(joined)
            }
            "Squeeze" => {
                let from = shape(0)?;
                let gone = positions(axes()?, from.len())?;
                Some(
                    (0..from.len())
                        .filter(|axis| !gone.contains(axis))
                        .map(|axis| from[axis])
                        .collect(),
                )
            }
            "Unsqueeze" => {
                let from = shape(0)?;
                let axes = axes()?;
                let new = positions(axes, from.len() + axes.len())?;
                let mut rest = from.iter();
                let out = (0..from.len() + axes.len()).map(|axis| {
                    if new.contains(&axis) {
                        Some(Dim::Known(1))
                    } else {
                        rest.next().copied()
                    }
                });
                out.collect()
            }
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceL2" => {
                let from = shape(0)?;
                let gone = positions(axes()?, from.len())?;
                let keep = int(node, "keepdims").unwrap_or(1) != 0;
                let reduced = from
                    .iter()
                    .enumerate()
                    .filter_map(|(axis, dim)| match (gone.contains(&axis), keep) {
                        (false, _) => Some(*dim),
                        (true, true) => Some(Dim::Known(1)),
                        (true, false) => None,
                    });
                Some(reduced.collect())
            }
            "Gather" => {
                let (from, indices) = (shape(0)?, shape(1)?);
                let axis = position(int(node, "axis").unwrap_or(0), from.len())?;
                Some([&from[..axis], indices, &from[axis + 1..]].concat())
            }
            "Slice" => {
                let mut out = shape(0)?.to_vec();
                let given = ints(node, "axes").or_else(|| values(3));
                let sliced = given.map_or(Some((0..out.len()).collect()), |axes| positions(axes, out.len()))?;
                sliced.into_iter().for_each(|axis| out[axis] = Dim::Unknown);
                Some(out)
            }
            "Split" => {
                let mut out = shape(0)?.to_vec();
                let axis = position(int(node, "axis").unwrap_or(0), out.len())?;
                out[axis] = Dim::Unknown;
                Some(out)
            }
            "Pad" => Some(vec![Dim::Unknown; shape(0)?.len()]).map(|mut out: Vec<Dim>| {
                // Nobody pads pictures onto a batch or channels onto a map, except option-A residual networks.
                if let (Some(to), Some(from)) = (out.first_mut(), shape(0).and_then(|shape| shape.first())) {
                    *to = *from;
                }
                out
            }),
            "Resize" | "Upsample" => match values(3) {
                Some(sizes) => Some(sizes.iter().map(|&size| Dim::Known(size)).collect()),
                None => with_tail(shape(0)?, Dim::Unknown),
            },
            "Expand" => Some(broadcast(
                shape(0)?,
                &values(1)?.iter().map(|&dim| Dim::Known(dim)).collect::<Vec<_>>(),
            )),
            "ConstantOfShape" => Some(values(0)?.iter().map(|&dim| Dim::Known(dim)).collect()),
            "Shape" => Some(vec![Dim::Known(i64::try_from(shape(0)?.len()).ok()?)]),
            _ => None,
        }
    }
}

/// The first axis of an input of rank 4 or of whatever rank it has; `None` where the file leaves it open.
pub(super) fn batch_dim(value: &ValueInfoProto) -> Option<&DimensionValue> {
    let first = tensor_type(value)?.shape.as_ref()?.dim.first()?.value.as_ref()?;
    // Some exporters write 0 or -1 where they mean "any".
    Some(first).filter(|value| !matches!(value, DimensionValue::DimValue(length) if *length <= 0))
}

/// What the file says of a tensor, less what a fixed batch makes untrustworthy.
fn declared(value: &ValueInfoProto, fixed_batch: Option<i64>, batch_symbol: Option<&str>) -> Tensor {
    let Some(tensor) = tensor_type(value) else {
        return Tensor::default();
    };
    let dim = |(axis, dim): (usize, &super::onnx::tensor_shape_proto::Dimension)| match &dim.value {
        Some(DimensionValue::DimParam(symbol)) if axis == 0 && Some(symbol.as_str()) == batch_symbol => Dim::Batch,
        // A length that equals the fixed batch may be the batch, and the first axis mostly is.
        Some(DimensionValue::DimValue(length)) if *length > 0 && axis > 0 && Some(*length) != fixed_batch => {
            Dim::Known(*length)
        }
        _ => Dim::Unknown,
    };
    let shape = tensor
        .shape
        .as_ref()
        .map(|shape| shape.dim.iter().enumerate().map(dim).collect());
    Tensor {
        shape,
        element: element(tensor.elem_type()),
        constant: false,
        ints: None,
    }
}

fn constant(tensor: &TensorProto) -> Tensor {
    Tensor {
        shape: Some(tensor.dims.iter().map(|&dim| Dim::Known(dim)).collect()),
        element: element(tensor.data_type()),
        constant: true,
        ints: small_ints(tensor),
    }
}

fn constant_node(node: &NodeProto) -> Tensor {
    if let Some(tensor) = node.attribute.iter().find_map(|attribute| attribute.t.as_ref()) {
        return constant(tensor);
    }
    let vector = |length: usize| i64::try_from(length).ok().map(|length| vec![Dim::Known(length)]);
    let (shape, element, values) = match node.attribute.first() {
        Some(attribute) if attribute.name() == "value_int" => (
            Some(Vec::new()),
            Some(DataType::Int64),
            attribute.i.map(|value| vec![value]),
        ),
        Some(attribute) if attribute.name() == "value_ints" => (
            vector(attribute.ints.len()),
            Some(DataType::Int64),
            Some(attribute.ints.clone()),
        ),
        Some(attribute) if attribute.name() == "value_float" => (Some(Vec::new()), Some(DataType::Float), None),
        Some(attribute) if attribute.name() == "value_floats" => {
            (vector(attribute.floats.len()), Some(DataType::Float), None)
        }
        _ => (None, None, None),
    };
    Tensor {
        shape,
        element,
        constant: true,
        ints: values,
    }
}

fn keeps_shape(operator: &str) -> bool {
    matches!(
        operator,
        "Relu"
            | "LeakyRelu"
            | "PRelu"
            | "Clip"
            | "Sigmoid"
            | "HardSigmoid"
            | "HardSwish"
            | "Tanh"
            | "Exp"
            | "Log"
            | "Sqrt"
            | "Erf"
            | "Gelu"
            | "Elu"
            | "Selu"
            | "Celu"
            | "Mish"
            | "Softplus"
            | "Softsign"
            | "Softmax"
            | "LogSoftmax"
            | "Identity"
            | "Cast"
            | "Dropout"
            | "BatchNormalization"
            | "InstanceNormalization"
            | "LRN"
            | "LayerNormalization"
            | "GroupNormalization"
            | "RMSNormalization"
            | "LpNormalization"
            | "QuantizeLinear"
            | "DequantizeLinear"
            | "Abs"
            | "Neg"
            | "Reciprocal"
            | "Floor"
            | "Ceil"
            | "Round"
    )
}

/// Operators whose first output has the element type of their first input.
fn same_type(operator: &str) -> bool {
    keeps_shape(operator)
        || matches!(
            operator,
            "Add"
                | "Sub"
                | "Mul"
                | "Div"
                | "Pow"
                | "Max"
                | "Min"
                | "Sum"
                | "Mean"
                | "Conv"
                | "ConvTranspose"
                | "MaxPool"
                | "AveragePool"
                | "LpPool"
                | "GlobalAveragePool"
                | "GlobalMaxPool"
                | "GlobalLpPool"
                | "Flatten"
                | "Gemm"
                | "MatMul"
                | "Reshape"
                | "Transpose"
                | "Concat"
                | "Squeeze"
                | "Unsqueeze"
                | "ReduceMean"
                | "ReduceSum"
                | "ReduceMax"
                | "ReduceMin"
                | "ReduceL2"
                | "Gather"
                | "Slice"
                | "Split"
                | "Pad"
                | "Resize"
                | "Upsample"
                | "Expand"
        )
}
