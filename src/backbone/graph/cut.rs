//! Where the features are: the input of the last classifier layer, or what the caller names.

use std::collections::HashMap;

use super::Refusal;
use super::access::{input, int, ints, operator};
use super::dims::{Dim, positions, product};
use super::infer::Shapes;
use super::onnx::tensor_proto::DataType;
use super::onnx::{FunctionProto, GraphProto, NodeProto};

/// The tensor to cut at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Cut {
    pub(super) tensor: String,
    /// Features per picture, as the classifier's weight says it.
    pub(super) dim: Option<usize>,
    /// The rank that the operator which reads the tensor demands, if it does: 2 for `[n, d]`, 4 for a map.
    pub(super) rank: Option<usize>,
    pub(super) doubt: Option<Doubt>,
}

/// Why the tensor that was found may not be the one that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// No classifier layer: the output itself was taken, which may hold classes.
    NoClassifier,
    /// The 1×1 convolution of a map whose average is `output`: `SqueezeNet`'s classifier, but features can end so too.
    AveragedConvolution { output: String },
}

/// The graph and what helps to walk it backwards.
pub(super) struct Walk<'a> {
    graph: &'a GraphProto,
    functions: &'a [FunctionProto],
    shapes: &'a Shapes,
    producers: HashMap<&'a str, &'a NodeProto>,
}

/// What the walk back from a graph output met.
enum End<'a> {
    Classifier(Cut),
    /// No classifier; the node the walk stopped at, and whether a softmax or the like was passed on the way.
    Other {
        node: Option<&'a NodeProto>,
        probabilities: bool,
    },
}

impl<'a> Walk<'a> {
    pub(super) fn new(graph: &'a GraphProto, functions: &'a [FunctionProto], shapes: &'a Shapes) -> Self {
        let outputs = |node: &'a NodeProto| node.output.iter().map(move |name| (name.as_str(), node));
        let producers = graph
            .node
            .iter()
            .flat_map(outputs)
            .filter(|(name, _)| !name.is_empty())
            .collect();
        Self {
            graph,
            functions,
            shapes,
            producers,
        }
    }

    /// The input of the classifier that the first output with one leads back to; without a classifier, the first
    /// output that can be a feature.
    pub(super) fn find(&self) -> Result<Cut, Refusal> {
        let mut others = Vec::new();
        for output in &self.graph.output {
            match self.walk_back(output.name())? {
                End::Classifier(cut) => return Ok(cut),
                End::Other { node, probabilities } => others.push((output.name(), node, probabilities)),
            }
        }
        if others.iter().any(|(_, _, probabilities)| *probabilities) {
            return Err(self.refuse("it ends in class probabilities, but no Gemm or MatMul before them was found"));
        }
        for (name, node, _) in others {
            let Some(node) = node else { continue };
            if self.functions.iter().any(|function| function.name() == node.op_type()) {
                let what = format!(
                    "its output comes from the function `{}`, which can't be looked into",
                    node.op_type()
                );
                return Err(Refusal {
                    problem: what,
                    hint: "inline its functions (`onnx.inliner`) and try again".into(),
                });
            }
            if self
                .shapes
                .get(name)
                .is_none_or(|tensor| can_be_feature(tensor.shape.as_deref(), tensor.element))
            {
                return Ok(Cut {
                    tensor: name.to_owned(),
                    dim: None,
                    rank: None,
                    doubt: Some(Doubt::NoClassifier),
                });
            }
        }
        Err(self.refuse("none of its outputs is a classification or a feature [batch, dim] of floats"))
    }

    /// The tensor that the caller chose.
    pub(super) fn named(&self, feature: &str) -> Option<Cut> {
        // The classifier's weight knows the dimension even where no shape is written in the file.
        let found = self.find().ok().filter(|cut| cut.tensor == feature);
        let known = self.producers.contains_key(feature);
        known.then(|| Cut {
            tensor: feature.to_owned(),
            dim: found.as_ref().and_then(|cut| cut.dim),
            rank: found.as_ref().and_then(|cut| cut.rank),
            doubt: None,
        })
    }

    /// Tensors worth naming, the best first: names like `wanted`, then the default, then what could be a feature.
    pub(super) fn candidates(&self, wanted: Option<&str>) -> Vec<String> {
        const LISTED: usize = 6;
        let mut names: Vec<&str> = Vec::new();
        let all = || {
            self.graph
                .node
                .iter()
                .rev()
                .flat_map(|node| &node.output)
                .filter(|name| !name.is_empty())
        };
        if let Some(wanted) = wanted.map(str::to_lowercase).filter(|wanted| wanted.len() > 2) {
            let alike = |name: &&String| {
                let name = name.to_lowercase();
                name.len() > 2 && (name.contains(&wanted) || wanted.contains(&name))
            };
            names.extend(all().filter(alike).take(LISTED / 2).map(String::as_str));
        }
        let default = self.find();
        names.extend(default.iter().map(|cut| cut.tensor.as_str()));
        let is_vector = |name: &&String| {
            self.shapes.get(name).is_some_and(|tensor| {
                !tensor.constant
                    && tensor.element.is_none_or(is_float)
                    && tensor
                        .shape
                        .as_deref()
                        .is_some_and(|shape| shape.len() > 1 && per_picture(shape).is_some())
            })
        };
        names.extend(all().filter(is_vector).map(String::as_str));
        let mut listed: Vec<String> = Vec::new();
        for name in names {
            if listed.len() < LISTED && !listed.iter().any(|other| other == name) {
                listed.push(name.to_owned());
            }
        }
        listed
    }

    fn refuse(&self, problem: &str) -> Refusal {
        // `find` is what fails here, so the candidates come from the shapes alone.
        let pooled = self.graph.node.iter().rev().filter(|node| {
            matches!(
                operator(node),
                "Conv" | "Flatten" | "Gemm" | "MatMul" | "GlobalAveragePool" | "ReduceMean"
            )
        });
        let names: Vec<String> = pooled
            .filter_map(|node| node.output.first())
            .take(4)
            .map(|name| format!("`{name}`"))
            .collect();
        Refusal {
            problem: problem.to_owned(),
            hint: format!(
                "name the feature tensor yourself, for example one of {}",
                names.join(", ")
            ),
        }
    }

    fn walk_back(&self, output: &'a str) -> Result<End<'a>, Refusal> {
        let mut name = output;
        let mut probabilities = false;
        let mut averaged = false;
        // A damaged graph may have a circle.
        for _ in 0..=self.graph.node.len() {
            let Some(&node) = self.producers.get(name) else { break };
            let mut before = input(node, 0);
            match operator(node) {
                "Softmax" | "LogSoftmax" | "Sigmoid" | "ArgMax" | "TopK" => probabilities = true,
                "Identity" | "Flatten" | "Reshape" | "Squeeze" | "Cast" | "Dropout" | "QuantizeLinear"
                | "DequantizeLinear" => {}
                "GlobalAveragePool" | "AveragePool" => averaged = true,
                "ReduceMean" if self.averages_a_map(node) => averaged = true,
                "Relu" if averaged => {}
                "Mul" | "Div" | "Add" | "Sub" if self.scaled(node).is_some() => before = self.scaled(node),
                _ => {
                    let cut = if averaged {
                        self.averaged_convolution(node).map(|cut| Cut {
                            // Who takes a softmax of it means classes.
                            doubt: (!probabilities).then(|| Doubt::AveragedConvolution {
                                output: output.to_owned(),
                            }),
                            ..cut
                        })
                    } else {
                        self.classifier(node)?
                    };
                    return Ok(cut.map_or(
                        End::Other {
                            node: Some(node),
                            probabilities,
                        },
                        End::Classifier,
                    ));
                }
            }
            let Some(before) = before else { break };
            name = before;
        }
        Ok(End::Other {
            node: self.producers.get(name).copied(),
            probabilities,
        })
    }

    /// Whether `node` is the mean over the height and width of `[n, c, h, w]`.
    fn averages_a_map(&self, node: &NodeProto) -> bool {
        let axes = ints(node, "axes").or_else(|| self.shapes.get(input(node, 1)?)?.ints.as_deref());
        let mut axes = axes.and_then(|axes| positions(axes, 4)).unwrap_or_default();
        axes.sort_unstable();
        axes == [2, 3]
    }

    /// What `node` does arithmetic on, if its other operand is one constant number.
    fn scaled(&self, node: &'a NodeProto) -> Option<&'a str> {
        let (one, other) = (input(node, 0)?, input(node, 1)?);
        let is_number = |name| {
            self.shapes
                .constant_dims(name)
                .is_some_and(|dims| dims.iter().all(|&dim| dim == 1))
        };
        match (is_number(one), is_number(other)) {
            (false, true) => Some(one),
            (true, false) if matches!(operator(node), "Mul" | "Add") => Some(other),
            _ => None,
        }
    }

    /// The cut in front of `node`, if it is a 1×1 convolution: of a map that is averaged afterwards, as `SqueezeNet`
    /// ends, it is the classifier, and its input's average the feature.
    fn averaged_convolution(&self, node: &NodeProto) -> Option<Cut> {
        let (features, weight) = (input(node, 0)?, input(node, 1)?);
        self.is_one_by_one(node, weight)
            .then(|| self.cut(features, weight, 1, Some(4)))
    }

    /// Whether `node` is a convolution that multiplies each pixel by the constant matrix `weight`.
    fn is_one_by_one(&self, node: &NodeProto, weight: &str) -> bool {
        operator(node) == "Conv"
            && self
                .shapes
                .constant_dims(weight)
                .is_some_and(|dims| matches!(dims[..], [_, _, 1, 1]))
            && int(node, "group").unwrap_or(1) == 1
            && ints(node, "pads").is_none_or(|pads| pads.iter().all(|&pad| pad == 0))
    }

    /// The cut in front of `node`, if it is a classifier layer: features times a constant matrix.
    fn classifier(&self, node: &'a NodeProto) -> Result<Option<Cut>, Refusal> {
        let is_constant = |name| self.shapes.get(name).is_some_and(|tensor| tensor.constant);
        match operator(node) {
            "Gemm" => {
                let (Some(features), Some(weight)) = (input(node, 0), input(node, 1)) else {
                    return Ok(None);
                };
                if !is_constant(weight) {
                    return Ok(None);
                }
                if int(node, "transA").unwrap_or(0) != 0 {
                    return Err(self.refuse("its last layer is a Gemm with transA=1, which mixes the pictures"));
                }
                let rows = usize::from(int(node, "transB").unwrap_or(0) != 0);
                Ok(Some(self.cut(features, weight, rows, Some(2))))
            }
            "MatMul" => Ok(self.matmul(node)),
            "Add" => {
                // The bias may stand on either side; it must not be a matrix, which no bias is.
                let (Some(one), Some(other)) = (input(node, 0), input(node, 1)) else {
                    return Ok(None);
                };
                let is_bias = |name| {
                    let dims = self.shapes.constant_dims(name);
                    is_constant(name) && dims.is_none_or(|dims| dims.iter().rev().skip(1).all(|&dim| dim == 1))
                };
                let product = if is_bias(other) { one } else { other };
                if !is_bias(one) && !is_bias(other) {
                    return Ok(None);
                }
                let before = self
                    .producers
                    .get(product)
                    .filter(|before| operator(before) == "MatMul");
                Ok(before.and_then(|before| self.matmul(before)))
            }
            "Conv" => {
                // A 1×1 convolution of a 1×1 map is a linear layer: MobileNets and MXNet's models end so.
                let (Some(features), Some(weight)) = (input(node, 0), input(node, 1)) else {
                    return Ok(None);
                };
                let is_linear = self.is_one_by_one(node, weight)
                    && matches!(self.shapes.shape(features), Some([_, _, Dim::Known(1), Dim::Known(1)]));
                Ok(is_linear.then(|| self.cut(features, weight, 1, None)))
            }
            _ if matches!(node.op_type(), "QGemm" | "QLinearMatMul" | "FusedGemm" | "MatMulNBits") => {
                Err(self.refuse(&format!(
                    "its last layer is a {}, whose input is no plain feature",
                    node.op_type()
                )))
            }
            _ => Ok(None),
        }
    }

    fn matmul(&self, node: &'a NodeProto) -> Option<Cut> {
        let (features, weight) = (input(node, 0)?, input(node, 1)?);
        let weight_tensor = self.shapes.get(weight).filter(|tensor| tensor.constant)?;
        let is_classifier = weight_tensor.shape.as_ref().is_none_or(|shape| shape.len() == 2);
        is_classifier.then(|| self.cut(features, weight, 0, None))
    }

    fn cut(&self, features: &str, weight: &str, axis: usize, rank: Option<usize>) -> Cut {
        let dims = self.shapes.constant_dims(weight);
        let dim = dims
            .and_then(|dims| usize::try_from(*dims.get(axis)?).ok())
            .filter(|&dim| dim > 0);
        Cut {
            tensor: features.to_owned(),
            dim,
            rank,
            doubt: None,
        }
    }
}

pub(super) fn is_float(element: DataType) -> bool {
    matches!(
        element,
        DataType::Float | DataType::Float16 | DataType::Bfloat16 | DataType::Double
    )
}

/// The numbers per picture of a tensor that is `[n, d]` or `[n, .., d, ..]` with ones around `d`.
///
/// `None` if it is neither; `Some(None)` if it is and `d` is unknown.
pub(super) fn per_picture(shape: &[Dim]) -> Option<Option<usize>> {
    let (_, rest) = shape.split_first()?;
    let open = rest.iter().filter(|dim| **dim != Dim::Known(1)).count();
    let count = || {
        product(rest)
            .and_then(|count| usize::try_from(count).ok())
            .filter(|&count| count > 0)
    };
    (rest.len() == 1 || (!rest.is_empty() && open <= 1)).then(count)
}

/// Whether a graph output of this kind can be taken as features: a vector, or a map to be averaged.
fn can_be_feature(shape: Option<&[Dim]>, element: Option<DataType>) -> bool {
    element.is_none_or(is_float) && shape.is_none_or(|shape| shape.len() == 4 || per_picture(shape).is_some())
}
