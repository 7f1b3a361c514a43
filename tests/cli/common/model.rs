//! Small ONNX classifiers, written as protobuf by hand (protobuf.dev, "Encoding"; onnx.proto), and what they compute.

/// `input [batch, 3, side, side]` → Conv → Relu → GlobalAveragePool → Flatten → `features [batch, width]` → Gemm → `output`.
#[derive(Debug, Clone)]
pub(crate) struct TinyModel {
    /// Of the weights.
    pub(crate) seed: u64,
    /// The batch in the file; `None` is a dynamic one.
    pub(crate) batch: Option<u64>,
    /// Channels of the pictures it takes.
    pub(crate) channels: usize,
    /// Side of the pictures it takes, in pixels.
    pub(crate) side: usize,
    /// Length of a feature.
    pub(crate) width: usize,
    /// Side of the convolution's kernel, in pixels.
    pub(crate) kernel: usize,
    /// Step of the convolution, in pixels.
    pub(crate) stride: usize,
    pub(crate) classifier: Classifier,
    /// Whether the features depend on a second input.
    pub(crate) second_input: bool,
    /// Whether weights lie in `float_data` instead of `raw_data`.
    pub(crate) float_data: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Classifier {
    /// A Gemm whose matrix is `[5, width]`, as PyTorch writes it.
    Transposed,
    /// A Gemm whose matrix is `[width, 5]`.
    Plain,
    /// None: the model ends in its features.
    Missing,
}

impl Default for TinyModel {
    fn default() -> Self {
        Self {
            seed: 1,
            batch: None,
            channels: 3,
            side: 224,
            width: 8,
            kernel: 3,
            stride: 8,
            classifier: Classifier::Transposed,
            second_input: false,
            float_data: false,
        }
    }
}

const CLASSES: usize = 5;

impl TinyModel {
    /// `[width, channels, kernel, kernel]`, in ±1 over the root of the number of inputs.
    fn convolution(&self) -> Vec<f32> {
        let inputs = self.channels * self.kernel * self.kernel;
        let scale = 2.0 / (inputs as f32).sqrt();
        numbers(self.seed, self.width * inputs)
            .map(|value| value * scale)
            .collect()
    }

    fn bias(&self) -> Vec<f32> {
        numbers(self.seed ^ 0xb1a5, self.width)
            .map(|value| 0.5 + value * 0.25)
            .collect()
    }

    /// The features of one normalised picture `[3, side, side]`, computed in f64 from the formulas alone.
    pub(crate) fn features(&self, picture: &[f32]) -> Vec<f64> {
        let (weight, bias) = (self.convolution(), self.bias());
        let steps = (self.side - self.kernel) / self.stride + 1;
        let at = |output: usize, row: usize, column: usize| {
            let mut sum = f64::from(bias[output]);
            for channel in 0..self.channels {
                for y in 0..self.kernel {
                    for x in 0..self.kernel {
                        let pixel =
                            (channel * self.side + row * self.stride + y) * self.side + column * self.stride + x;
                        let index = ((output * self.channels + channel) * self.kernel + y) * self.kernel + x;
                        sum += f64::from(picture[pixel]) * f64::from(weight[index]);
                    }
                }
            }
            sum.max(0.0)
        };
        let mean = |output| {
            let all = (0..steps).flat_map(|row| (0..steps).map(move |column| (row, column)));
            all.map(|(row, column)| at(output, row, column)).sum::<f64>() / (steps * steps) as f64
        };
        (0..self.width).map(mean).collect()
    }

    /// The model file's bytes.
    pub(crate) fn onnx(&self) -> Vec<u8> {
        let (width, kernel) = (self.width, self.kernel as u64);
        let batch = self.batch.map_or_else(|| bytes(2, b"batch"), |batch| varint(1, batch));
        let axes = |rest: &[usize]| {
            let mut axes = vec![batch.clone()];
            axes.extend(rest.iter().map(|length| varint(1, *length as u64)));
            axes
        };
        let kernel_shape = ints("kernel_shape", &[kernel, kernel]);
        let strides = ints("strides", &[self.stride as u64; 2]);
        let mut graph = vec![
            node(
                "Conv",
                &["input", "conv.weight", "conv.bias"],
                "convolved",
                &[kernel_shape, strides],
            ),
            node("Relu", &["convolved"], "rectified", &[]),
            node("GlobalAveragePool", &["rectified"], "pooled", &[]),
            node("Flatten", &["pooled"], "features", &[int("axis", 1)]),
        ];
        let mut last = "features";
        if self.second_input {
            graph.push(node("Add", &["features", "offset"], "moved", &[]));
            last = "moved";
        }
        let (shape, trans_b) = match self.classifier {
            Classifier::Transposed => ([CLASSES, width], 1),
            _ => ([width, CLASSES], 0),
        };
        if self.classifier != Classifier::Missing {
            let weights = [last, "fc.weight", "fc.bias"];
            graph.push(node("Gemm", &weights, "output", &[int("transB", trans_b)]));
        }
        graph.push(bytes(2, b"tiny"));
        graph.push(self.tensor(
            "conv.weight",
            &[width, self.channels, self.kernel, self.kernel],
            &self.convolution(),
        ));
        graph.push(self.tensor("conv.bias", &[width], &self.bias()));
        if self.classifier != Classifier::Missing {
            let weight: Vec<f32> = numbers(self.seed ^ 0xfc, width * CLASSES).collect();
            graph.push(self.tensor("fc.weight", &shape, &weight));
            graph.push(self.tensor("fc.bias", &[CLASSES], &[0.0; CLASSES]));
        }
        graph.push(bytes(
            11,
            &value("input", &axes(&[self.channels, self.side, self.side])),
        ));
        if self.second_input {
            graph.push(bytes(11, &value("offset", &axes(&[width]))));
        }
        let (output, length) = match self.classifier {
            Classifier::Missing => (last, width),
            _ => ("output", CLASSES),
        };
        graph.push(bytes(12, &value(output, &axes(&[length]))));
        let opset = [bytes(1, b""), varint(2, 17)].concat();
        [varint(1, 8), bytes(7, &graph.concat()), bytes(8, &opset)].concat()
    }

    /// An initializer, as field 5 of the graph.
    fn tensor(&self, name: &str, dims: &[usize], data: &[f32]) -> Vec<u8> {
        assert_eq!(dims.iter().product::<usize>(), data.len(), "{name}");
        let data: Vec<u8> = data.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut tensor: Vec<u8> = dims.iter().flat_map(|length| varint(1, *length as u64)).collect();
        tensor.extend(varint(2, 1));
        tensor.extend(bytes(8, name.as_bytes()));
        tensor.extend(bytes(if self.float_data { 4 } else { 9 }, &data));
        bytes(5, &tensor)
    }
}

/// Numbers in -1..1 that depend on the seed alone (splitmix64).
pub(super) fn numbers(seed: u64, count: usize) -> impl Iterator<Item = f32> {
    (1..=count as u64).map(move |index| {
        let mut mixed = seed.wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^= mixed >> 31;
        (mixed >> 40) as f32 / (1 << 23) as f32 - 1.0
    })
}

/// A number of any size, seven bits a byte, the lowest first.
fn number(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value > 0x7f {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn varint(field: u64, value: u64) -> Vec<u8> {
    [number(field << 3), number(value)].concat()
}

fn bytes(field: u64, content: &[u8]) -> Vec<u8> {
    [&number(field << 3 | 2)[..], &number(content.len() as u64), content].concat()
}

fn int(name: &str, value: u64) -> Vec<u8> {
    [bytes(1, name.as_bytes()), varint(3, value), varint(20, 2)].concat()
}

fn ints(name: &str, values: &[u64]) -> Vec<u8> {
    let values: Vec<u8> = values.iter().flat_map(|value| varint(8, *value)).collect();
    [bytes(1, name.as_bytes()), values, varint(20, 7)].concat()
}

/// A node, as field 1 of the graph.
fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    let mut node: Vec<u8> = inputs.iter().flat_map(|name| bytes(1, name.as_bytes())).collect();
    node.extend(bytes(2, output.as_bytes()));
    node.extend(bytes(3, output.as_bytes()));
    node.extend(bytes(4, operator.as_bytes()));
    node.extend(attributes.iter().flat_map(|attribute| bytes(5, attribute)));
    bytes(1, &node)
}

/// A value of floats with these axes.
fn value(name: &str, axes: &[Vec<u8>]) -> Vec<u8> {
    let shape: Vec<u8> = axes.iter().flat_map(|axis| bytes(1, axis)).collect();
    let tensor = [varint(1, 1), bytes(2, &shape)].concat();
    [bytes(1, name.as_bytes()), bytes(2, &bytes(1, &tensor))].concat()
}
