"""ONNX operators that multiply no matrices; what runs in the body of one is a node of its own.

Free is what moves, compares, draws, or works element by element, as in
:mod:`effattack.counting.free`.
"""

from __future__ import annotations

FREE: set[str] = set(
    """
    Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization
    Bernoulli BitCast BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast
    CastLike Ceil Celu CenterCropPad Clip Col2Im Compress Concat ConcatFromSequence Constant
    ConstantOfShape Cos Cosh CumProd CumSum DepthToSpace DequantizeLinear Div Dropout
    DynamicQuantizeLinear Elu Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements
    GatherND Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool Greater GreaterOrEqual GridSample
    GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity If
    InstanceNormalization IsInf IsNaN LRN LayerNormalization LeakyRelu Less LessOrEqual Log
    LogSoftmax Loop LpNormalization LpPool Max MaxPool MaxRoiPool MaxUnpool Mean
    MeanVarianceNormalization Min Mish Mod Mul Multinomial Neg NonMaxSuppression NonZero Not OneHot
    Optional OptionalGetElement OptionalHasElement Or PRelu Pad Pow QuantizeLinear
    RMSNormalization RandomNormal RandomNormalLike RandomUniform RandomUniformLike Range Reciprocal
    ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd
    ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign RotaryEmbedding Round
    Scan Scatter ScatterElements ScatterND Selu SequenceAt SequenceConstruct SequenceEmpty
    SequenceErase SequenceInsert SequenceLength SequenceMap Shape Shrink Sigmoid Sign
    SimplifiedLayerNormalization Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split
    SplitToSequence Sqrt Squeeze Sub Sum SwiGLU Swish Tan Tanh TensorScatter ThresholdedRelu Tile
    TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor MemcpyFromHost MemcpyToHost
    """.split()  # noqa: SIM905
)
FREE |= {
    f"com.microsoft.{name}"
    for name in """
    BiasAdd BiasDropout BiasGelu BiasSoftmax BiasSplitGelu BitmaskBiasDropout BitmaskDropout
    ComplexMul ComplexMulConj CropAndResize DequantizeLinear EmbedLayerNormalization ExpandDims
    FastGelu GatherND Gelu GemmaRotaryEmbedding GridSample GroupNorm MaxpoolWithMask MulInteger
    NhwcMaxPool Pad QLinearAdd QLinearAveragePool QLinearConcat QLinearGlobalAveragePool
    QLinearLeakyRelu QLinearMul QLinearReduceMean QLinearSigmoid QLinearSoftmax QLinearWhere
    QuantizeLinear QuickGelu Range ReduceSumInteger RemovePadding RestorePadding RotaryEmbedding
    SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization SwiGLU Trilu Unique
    """.split()  # noqa: SIM905
}
FREE |= {
    f"com.microsoft.nchwc.{name}"
    for name in """
    AveragePool GlobalAveragePool GlobalMaxPool MaxPool ReorderInput ReorderOutput Upsample
    """.split()  # noqa: SIM905
}
FREE |= {
    f"com.ms.internal.nhwc.{name}"
    for name in """
    AveragePool BatchNormalization DepthToSpace GlobalAveragePool GlobalLpPool GlobalMaxPool
    GridSample InstanceNormalization LRN LpPool MaxPool MaxUnpool QLinearAveragePool Resize
    SpaceToDepth
    """.split()  # noqa: SIM905
}
