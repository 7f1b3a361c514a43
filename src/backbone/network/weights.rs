//! Where a network's weights come from: a checkpoint, or a seed.
//!
//! A network asks for one folded convolution after the other and doesn't know which of the two it gets.

use std::collections::HashSet;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::backbone::checkpoint::{StateDict, Tensor};
use crate::{Error, Result};

/// What PyTorch's `BatchNorm2d` adds to the variance unless told otherwise.
const BATCH_NORM_EPSILON: f64 = 1e-5;

/// A convolution followed by a batch normalisation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Convolution<'a> {
    /// The convolution's name in the checkpoint, such as `layer1.0.conv1`.
    pub(crate) name: &'a str,
    /// The normalisation's name in the checkpoint, such as `layer1.0.bn1`.
    pub(crate) norm: &'a str,
    /// How many channels go in.
    pub(crate) inputs: usize,
    /// How many channels come out.
    pub(crate) outputs: usize,
    /// Side of the square kernel.
    pub(crate) kernel: usize,
    /// Step in both directions.
    pub(crate) stride: usize,
    /// Number of groups of channels that don't see each other; `inputs` of them make it depthwise.
    pub(crate) groups: usize,
}

impl Convolution<'_> {
    /// `[outputs, inputs / groups, kernel, kernel]`
    pub(crate) fn shape(&self) -> [usize; 4] {
        [self.outputs, self.inputs / self.groups, self.kernel, self.kernel]
    }
}

/// A convolution that does what the convolution and its normalisation did.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Folded {
    /// As [`Convolution::shape`] says, row-major.
    pub(crate) weight: Vec<f32>,
    /// One for each output channel.
    pub(crate) bias: Vec<f32>,
}

/// A source of weights.
pub(crate) trait Weights {
    /// The weights of one convolution.
    ///
    /// # Errors
    /// [`Error::Network`] if there are none of that name and shape.
    fn convolution(&mut self, convolution: &Convolution<'_>) -> Result<Folded>;
}

/// The weights of a checkpoint.
#[derive(Debug)]
pub(crate) struct Trained<'a> {
    network: &'static str,
    state: &'a StateDict,
    taken: HashSet<String>,
}

impl<'a> Trained<'a> {
    /// Takes `state` for the weights of `network`, a name for messages.
    pub(crate) fn new(network: &'static str, state: &'a StateDict) -> Self {
        Self {
            network,
            state,
            taken: HashSet::new(),
        }
    }

    /// Checks that every tensor was taken, except for those whose names begin with one of `ignored`.
    ///
    /// # Errors
    /// [`Error::Network`] naming the surplus tensors: weights nobody asked for mean that the network is another one.
    pub(crate) fn finish(self, ignored: &[&str]) -> Result<()> {
        let surplus: Vec<&str> = self
            .state
            .names()
            .filter(|name| !self.taken.contains(*name) && !ignored.iter().any(|prefix| name.starts_with(prefix)))
            .collect();
        match surplus.len() {
            0 => Ok(()),
            1 => Err(self.error(format!("the tensor `{}` has no place in it", surplus[0].escape_debug()))),
            count => {
                let (first, second) = (surplus[0].escape_debug(), surplus[1].escape_debug());
                Err(self.error(format!(
                    "{count} tensors have no place in it, such as `{first}` and `{second}`"
                )))
            }
        }
    }

    fn take(&mut self, name: String, shape: &[usize]) -> Result<&'a Tensor> {
        let Some(tensor) = self.state.get(&name) else {
            return Err(self.error(format!("the tensor `{name}` is missing")));
        };
        if tensor.shape != shape {
            return Err(self.error(format!(
                "the tensor `{name}` has the shape {:?} and should have {shape:?}",
                tensor.shape
            )));
        }
        if tensor.data.iter().any(|value| !value.is_finite()) {
            return Err(self.error(format!("the tensor `{name}` holds a value that is not finite")));
        }
        self.taken.insert(name);
        Ok(tensor)
    }

    fn error(&self, reason: String) -> Error {
        Error::Network {
            network: self.network,
            reason,
        }
    }
}

impl Weights for Trained<'_> {
    fn convolution(&mut self, convolution: &Convolution<'_>) -> Result<Folded> {
        let Convolution {
            name, norm, outputs, ..
        } = *convolution;
        let weight = self.take(format!("{name}.weight"), &convolution.shape())?;
        let norm = BatchNorm {
            scale: &self.take(format!("{norm}.weight"), &[outputs])?.data,
            shift: &self.take(format!("{norm}.bias"), &[outputs])?.data,
            mean: &self.take(format!("{norm}.running_mean"), &[outputs])?.data,
            variance: &self.take(format!("{norm}.running_var"), &[outputs])?.data,
        };
        if norm.variance.iter().any(|&variance| variance < 0.0) {
            return Err(self.error(format!(
                "the tensor `{}.running_var` holds a negative variance",
                convolution.norm
            )));
        }
        Ok(norm.fold(&weight.data))
    }
}

/// A batch normalisation as inference uses it, one value of each kind a channel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BatchNorm<'a> {
    pub(crate) scale: &'a [f32],
    pub(crate) shift: &'a [f32],
    pub(crate) mean: &'a [f32],
    pub(crate) variance: &'a [f32],
}

impl BatchNorm<'_> {
    /// Folds the normalisation into the convolution before it.
    ///
    /// With `s = scale / sqrt(variance + 1e-5)`: `s (w * x - mean) + shift = (s w) * x + (shift - s mean)`, in f64.
    pub(crate) fn fold(&self, weight: &[f32]) -> Folded {
        let channels = self.scale.len();
        let mut folded = Folded {
            weight: Vec::with_capacity(weight.len()),
            bias: Vec::with_capacity(channels),
        };
        for (channel, kernel) in weight.chunks_exact(weight.len() / channels).enumerate() {
            let factor =
                f64::from(self.scale[channel]) / (f64::from(self.variance[channel]) + BATCH_NORM_EPSILON).sqrt();
            folded
                .weight
                .extend(kernel.iter().map(|&value| (f64::from(value) * factor) as f32));
            folded
                .bias
                .push((f64::from(self.shift[channel]) - f64::from(self.mean[channel]) * factor) as f32);
        }
        folded
    }
}

/// Random weights as torchvision initialises them; the normalisation is the identity.
///
/// The random bits are the same everywhere. The numbers made of them go through the platform's `ln`, `sin`, and `cos`,
/// which may differ in the last bit of an f64 and so, once in many million weights, in the last bit of an f32.
#[derive(Debug)]
pub(crate) struct Untrained {
    random: ChaCha8Rng,
}

impl Untrained {
    /// The weights that belong to `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: ChaCha8Rng::seed_from_u64(seed),
        }
    }

    /// Uniform in `[0, 1)`, 53 bits.
    fn uniform(&mut self) -> f64 {
        (self.random.next_u64() >> 11) as f64 * (-53.0_f64).exp2()
    }

    /// Two independent standard normal numbers (Box and Muller 1958).
    fn normal_pair(&mut self) -> [f64; 2] {
        // 1 - uniform is never 0, so that its logarithm is finite.
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        [radius * cosine, radius * sine]
    }
}

impl Weights for Untrained {
    /// `kaiming_normal_(mode="fan_out", nonlinearity="relu")`: deviation `sqrt(2 / (outputs * kernel * kernel))`
    /// (He et al. 2015, eq. 14), which in PyTorch takes no account of groups.
    fn convolution(&mut self, convolution: &Convolution<'_>) -> Result<Folded> {
        let count = convolution.shape().iter().product::<usize>();
        let fan_out = convolution.outputs * convolution.kernel * convolution.kernel;
        let deviation = (2.0 / fan_out as f64).sqrt();
        let mut weight = Vec::with_capacity(count + 1);
        while weight.len() < count {
            weight.extend(self.normal_pair().map(|value| (value * deviation) as f32));
        }
        weight.truncate(count);
        Ok(Folded {
            weight,
            bias: vec![0.0; convolution.outputs],
        })
    }
}
