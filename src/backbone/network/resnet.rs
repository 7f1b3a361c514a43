//! ResNet18 (He et al. 2016, table 1), with the names of torchvision's checkpoints.

use super::super::build::integers;
use super::weights::{Convolution, Weights};
use super::{Edge, Network};
use crate::Result;
use crate::backbone::onnx::ModelProto;

const STEM: usize = 64;
/// Channels of the four stages; each has two basic blocks, and all but the first halve the size.
const STAGES: [usize; 4] = [64, 128, 256, 512];
const BLOCKS: usize = 2;

/// Builds the network down to the pooled features, `[batch, 512]`.
///
/// # Errors
/// Those of `weights`.
pub(super) fn build_resnet18(weights: &mut impl Weights) -> Result<ModelProto> {
    let (mut network, input) = Network::new("ResNet18", weights);
    let stem = Convolution {
        name: "conv1",
        norm: "bn1",
        inputs: 3,
        outputs: STEM,
        kernel: 7,
        stride: 2,
        groups: 1,
    };
    let edge = network.convolution(&input, &stem)?;
    let edge = network.relu(&edge, "relu");
    let attributes = [
        integers("kernel_shape", &[3, 3]),
        integers("pads", &[1, 1, 1, 1]),
        integers("strides", &[2, 2]),
    ];
    let mut edge = network.graph.node("MaxPool", "maxpool", &[&edge], attributes);

    let mut channels = STEM;
    for (stage, outputs) in STAGES.into_iter().enumerate() {
        for block in 0..BLOCKS {
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let name = format!("layer{}.{block}", stage + 1);
            edge = basic_block(&mut network, &edge, &name, channels, outputs, stride)?;
            channels = outputs;
        }
    }
    Ok(network.finish(&edge, channels))
}

/// Two 3×3 convolutions, added to the input, which a 1×1 convolution fits where the shape changes.
fn basic_block<W: Weights>(
    network: &mut Network<'_, W>,
    input: &Edge,
    name: &str,
    inputs: usize,
    outputs: usize,
    stride: usize,
) -> Result<Edge> {
    let layer = |name, norm, inputs, kernel, stride| Convolution {
        name,
        norm,
        inputs,
        outputs,
        kernel,
        stride,
        groups: 1,
    };
    let (first, first_norm) = (format!("{name}.conv1"), format!("{name}.bn1"));
    let (second, second_norm) = (format!("{name}.conv2"), format!("{name}.bn2"));
    let (down, down_norm) = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));

    let edge = network.convolution(input, &layer(&first, &first_norm, inputs, 3, stride))?;
    let edge = network.relu(&edge, &format!("{name}.relu1"));
    let edge = network.convolution(&edge, &layer(&second, &second_norm, outputs, 3, 1))?;
    let shortcut = if stride != 1 || inputs != outputs {
        network.convolution(input, &layer(&down, &down_norm, inputs, 1, stride))?
    } else {
        input.clone()
    };
    let edge = network.add(&edge, &shortcut, &format!("{name}.add"));
    Ok(network.relu(&edge, &format!("{name}.relu2")))
}
