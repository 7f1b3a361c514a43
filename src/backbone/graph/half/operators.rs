//! What is known of operators in half precision.
//!
//! The reference converter (`onnxconverter_common.float16`, and the one in ONNX Runtime's transformers tools) has a list of
//! operators that it keeps in f32, made when fewer kernels took f16. Here the list is the other way round: f16 is for the
//! operators for which ONNX Runtime's CUDA provider has an f16 kernel (`docs/OperatorKernels.md` of ONNX Runtime, each from
//! the opset on that has it); without one ONNX Runtime would take the tensor to the CPU and back. Of these the ones whose
//! results easily leave the range of f16 (6e-5 to 65504 in full precision) are kept in f32 too.

/// In which precision an operator computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    /// In f16.
    Half,
    /// In f32: there is no f16 kernel, ONNX allows no f16, or its results leave the range of f16.
    Full,
    /// In f32 if what it reads was made in f32, weights of one number aside: the rest of an expression that began so, such
    /// as a normalisation written out, or the lengths of a Resize; else in f16.
    Follows,
    /// In what its input was made as: any type will do.
    AsMade,
}

/// What the first output of an operator is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Result0 {
    /// No f32 whatever the inputs are.
    Other,
    /// f32 whatever the inputs are.
    Float,
    /// Of the type of this input.
    AsInput(usize),
    /// Of the type that this attribute names, else of the first input.
    Attribute(&'static str),
    /// Of the type of the tensor in the attribute `value`, else f32.
    Value,
}

/// The precision of the standard's `operator` in `opset`; an empty name is an operator of another domain.
pub(super) fn arithmetic(operator: &str, opset: i64) -> Arithmetic {
    // Sums, powers and quotients beyond 65504 are ordinary: squares of 256, 2048 numbers of 32, exp of 11.1.
    let follows_from = match operator {
        "Cast" | "Shape" | "Size" => return Arithmetic::AsMade,
        "Add" | "Sub" | "Mul" | "Div" => 7,
        "ReduceMean" | "Concat" | "Squeeze" | "Unsqueeze" | "Slice" | "Gather" | "Identity" => 1,
        "Sqrt" | "Neg" | "Abs" | "Floor" | "Ceil" => 6,
        "Round" => 11,
        _ => i64::MAX,
    };
    if opset >= follows_from {
        return Arithmetic::Follows;
    }
    let half_from = match operator {
        "Conv" | "ConvTranspose" | "MaxPool" | "GlobalAveragePool" | "GlobalMaxPool" | "MatMul" | "LRN" | "Softmax"
        | "LogSoftmax" | "Softplus" | "Softsign" | "Reshape" | "Flatten" | "Transpose" | "ReduceMax" | "ReduceMin"
        | "DepthToSpace" | "SpaceToDepth" | "LayerNormalization" => 1,
        "Pad" | "Split" => 2,
        "Relu"
        | "LeakyRelu"
        | "Elu"
        | "Selu"
        | "Sigmoid"
        | "HardSigmoid"
        | "Tanh"
        | "Log"
        | "Max"
        | "Min"
        | "Sum"
        | "InstanceNormalization"
        | "Tile" => 6,
        "AveragePool" | "BatchNormalization" | "Gemm" | "PRelu" | "Dropout" | "Greater" | "Less" | "Sin" | "Cos" => 7,
        "Expand" => 8,
        "Erf" | "Where" => 9,
        "ThresholdedRelu" => 10,
        "Equal" | "GatherElements" | "GatherND" | "ScatterElements" | "ScatterND" => 11,
        // Clip of opset 6 to 11, as in MobileNets of that age, has an f32 kernel only.
        "Clip" | "Einsum" | "GreaterOrEqual" | "LessOrEqual" => 12,
        "HardSwish" | "Trilu" => 14,
        "Gelu" => 20,
        "RMSNormalization" => 23,
        _ => i64::MAX,
    };
    if opset >= half_from {
        Arithmetic::Half
    } else {
        Arithmetic::Full
    }
}

/// What the standard's `operator` gives.
pub(super) fn result(operator: &str) -> Result0 {
    match operator {
        "Shape"
        | "Size"
        | "ArgMax"
        | "ArgMin"
        | "NonZero"
        | "NonMaxSuppression"
        | "Multinomial"
        | "Equal"
        | "Greater"
        | "Less"
        | "GreaterOrEqual"
        | "LessOrEqual"
        | "And"
        | "Or"
        | "Xor"
        | "Not"
        | "IsNaN"
        | "IsInf"
        | "QuantizeLinear"
        | "DynamicQuantizeLinear"
        | "QLinearConv"
        | "QLinearMatMul"
        | "ConvInteger"
        | "MatMulInteger"
        | "Constant" => Result0::Other,
        "RandomNormal" | "RandomUniform" => Result0::Float,
        "Cast" => Result0::Attribute("to"),
        "EyeLike" | "RandomNormalLike" | "RandomUniformLike" | "Bernoulli" => Result0::Attribute("dtype"),
        "ConstantOfShape" => Result0::Value,
        "Where" | "DequantizeLinear" | "CastLike" => Result0::AsInput(1),
        "OneHot" => Result0::AsInput(2),
        _ => Result0::AsInput(0),
    }
}

/// Whether the outputs behind the first are of its type; else they are indices, masks, or statistics nobody reads here.
pub(super) fn all_outputs_alike(operator: &str) -> bool {
    matches!(operator, "Split" | "LSTM" | "GRU" | "RNN" | "BatchNormalization")
}
