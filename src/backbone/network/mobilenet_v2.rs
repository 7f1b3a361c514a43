//! MobileNetV2, width 1.0 (Sandler et al. 2018, table 2), with the names of torchvision's checkpoints.

use super::weights::{Convolution, Weights};
use super::{Edge, Network};
use crate::Result;
use crate::backbone::checkpoint::StateDict;
use crate::backbone::onnx::ModelProto;

/// Expansion, channels, repetitions, and stride of the first repetition of each stage: the paper's t, c, n, s.
const STAGES: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];
const STEM: usize = 32;
const FEATURES: usize = 1280;

/// How the layers of a block are named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// torchvision's: `conv.0.0` and `conv.0.1` for the first convolution and its normalisation, `conv.1.0` …, and for
    /// the last `conv.2` and `conv.3`.
    Nested,
    /// Earlier implementations': `conv.0` and `conv.1`, `conv.3` and `conv.4`, `conv.6` and `conv.7`.
    Flat,
}

impl Names {
    /// The naming of a checkpoint. If it has neither, then torchvision's, so that errors are in its terms.
    pub(super) fn of(state: &StateDict) -> Self {
        if state.get("features.1.conv.0.weight").is_some() {
            Self::Flat
        } else {
            Self::Nested
        }
    }

    /// The names of convolution `index` of `count` in block `block`, and of its normalisation.
    fn of_layer(self, block: usize, index: usize, count: usize) -> (String, String) {
        let block = format!("features.{block}.conv");
        match self {
            Self::Flat => (format!("{block}.{}", 3 * index), format!("{block}.{}", 3 * index + 1)),
            Self::Nested if index + 1 == count => (format!("{block}.{index}"), format!("{block}.{}", index + 1)),
            Self::Nested => (format!("{block}.{index}.0"), format!("{block}.{index}.1")),
        }
    }
}

/// Builds the network down to the pooled features, `[batch, 1280]`.
///
/// # Errors
/// Those of `weights`.
pub(super) fn build(weights: &mut impl Weights, names: Names) -> Result<ModelProto> {
    let (mut network, input) = Network::new("MobileNetV2", weights);
    let bounds = Relu6::new(&mut network);
    let stem = Convolution {
        name: "features.0.0",
        norm: "features.0.1",
        inputs: 3,
        outputs: STEM,
        kernel: 3,
        stride: 2,
        groups: 1,
    };
    let edge = network.convolution(&input, &stem)?;
    let mut edge = bounds.apply(&mut network, &edge, "features.0.2");

    let mut channels = STEM;
    let mut block = 1;
    for (expansion, outputs, repetitions, first_stride) in STAGES {
        for repetition in 0..repetitions {
            let stride = if repetition == 0 { first_stride } else { 1 };
            edge = inverted_residual(
                &mut network,
                &bounds,
                names,
                &edge,
                Block {
                    index: block,
                    inputs: channels,
                    hidden: channels * expansion,
                    outputs,
                    stride,
                },
            )?;
            channels = outputs;
            block += 1;
        }
    }

    let last = Convolution {
        name: "features.18.0",
        norm: "features.18.1",
        inputs: channels,
        outputs: FEATURES,
        kernel: 1,
        stride: 1,
        groups: 1,
    };
    let edge = network.convolution(&edge, &last)?;
    let edge = bounds.apply(&mut network, &edge, "features.18.2");
    Ok(network.finish(&edge, FEATURES))
}

struct Block {
    index: usize,
    inputs: usize,
    hidden: usize,
    outputs: usize,
    stride: usize,
}

/// Widen (unless the expansion is 1), filter each channel, narrow without activation; add the input where shapes allow.
fn inverted_residual<W: Weights>(
    network: &mut Network<'_, W>,
    bounds: &Relu6,
    names: Names,
    input: &Edge,
    block: Block,
) -> Result<Edge> {
    let Block {
        index,
        inputs,
        hidden,
        outputs,
        stride,
    } = block;
    let widen = (inputs, hidden, 1, 1, 1);
    let filter = (hidden, hidden, 3, stride, hidden);
    let narrow = (hidden, outputs, 1, 1, 1);
    let layers = if hidden == inputs {
        vec![filter, narrow]
    } else {
        vec![widen, filter, narrow]
    };

    let mut edge = input.clone();
    for (layer, &(inputs, outputs, kernel, stride, groups)) in layers.iter().enumerate() {
        let (name, norm) = names.of_layer(index, layer, layers.len());
        let convolution = Convolution {
            name: &name,
            norm: &norm,
            inputs,
            outputs,
            kernel,
            stride,
            groups,
        };
        edge = network.convolution(&edge, &convolution)?;
        if layer + 1 < layers.len() {
            edge = bounds.apply(network, &edge, &format!("{name}.relu6"));
        }
    }
    if stride == 1 && inputs == outputs {
        edge = network.add(input, &edge, &format!("features.{index}.add"));
    }
    Ok(edge)
}

/// `min(max(x, 0), 6)`; the bounds are constants that all layers share.
struct Relu6 {
    zero: Edge,
    six: Edge,
}

impl Relu6 {
    fn new<W>(network: &mut Network<'_, W>) -> Self {
        Self {
            zero: network.graph.floats("zero", &[], &[0.0]),
            six: network.graph.floats("six", &[], &[6.0]),
        }
    }

    fn apply<W>(&self, network: &mut Network<'_, W>, input: &Edge, name: &str) -> Edge {
        network.graph.node("Clip", name, &[input, &self.zero, &self.six], [])
    }
}
