"""The results of an analysis. Imports no torch."""

from dataclasses import dataclass

# What may be done to a model before its weights are rounded to the nearest step: nothing; channels are rescaled exactly
# (:func:`mmrepvgg.equalize`); and rounding errors make up for each other, too, as in files of ``quantize_model``.
TREATMENTS = ('', 'equalized', 'equalized and rounded adaptively')


@dataclass(frozen=True)
class Kernel:
    """The fused kernel of a layer.

    Attributes:
        abs_max: Largest absolute weight.
        max_over_std: Largest absolute weight over the standard deviation of all weights.
        centre_over_rest: Largest absolute weight at the centre tap over the largest at the other taps. None for kernels
            of one tap.
        channel_spread: Largest absolute weight over the median of the output channels' largest absolute weights. Zeros
            do not count.
        channel_maxima: Quantiles of the output channels' largest absolute weights, evenly spaced from the smallest to
            the largest.
    """

    abs_max: float
    max_over_std: float
    centre_over_rest: float | None
    channel_spread: float
    channel_maxima: tuple[float, ...]


@dataclass(frozen=True)
class Activations:
    """A tensor between layers over all calibration images.

    Attributes:
        low: Smallest value.
        high: Largest value.
        percentile: Bound that 99.99% of the absolute values do not exceed, exact to 1.6%.
        channel_spread: Largest absolute value over the median of the channels' largest absolute values. Zeros do not
            count.
    """

    low: float
    high: float
    percentile: float
    channel_spread: float

    @property
    def outlier_ratio(self) -> float:
        """Largest absolute value over the percentile. If it is high, most of the range serves one value in 10,000."""
        largest = max(abs(self.low), abs(self.high))
        return largest / self.percentile if self.percentile else 1.0


@dataclass(frozen=True)
class Norm:
    """A batch norm of a block before its branches were fused.

    Attributes:
        branch: ``'3x3'``, ``'1x1'``, ``'identity'``, or the name of another norm in the block.
        scale: Median over the channels of the scale ``|gamma| / sqrt(var + eps)``.
        largest_scale: Largest scale of a channel.
        smallest_variance: Smallest running variance of a channel.
        num_dead: Number of channels with a running variance below eps. Their inputs are almost constant, and the norm
            enlarges them as much as eps allows.
    """

    branch: str
    scale: float
    largest_scale: float
    smallest_variance: float
    num_dead: int

    @property
    def spread(self) -> float:
        """Largest scale over the median scale."""
        return self.largest_scale / self.scale if self.scale else 1.0


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of the deploy form. Dicts have an entry for each of ``GRANULARITIES``.

    Attributes:
        name: Name of its block in the model, or of the layer itself.
        kernel: Description of its weights.
        inputs: Description of its input.
        weight_snr: Signal over quantization noise of the weights in dB. It is the lower quartile over the output
            channels, because the largest channels alone would decide the ratio of the whole weight.
        output_snr: Signal over quantization noise of the output in dB, when only this layer has int8 input and weights.
            It is the lower quartile over the channels. The signal is the varying part, since the bias can hold
            the rest.
        effect: Signal over noise of the model's logits in dB, when only this layer is int8, per-tensor.
        norms: Batch norms that were fused into the layer; empty if the checkpoint was in deploy form.
    """

    name: str
    kernel: Kernel
    inputs: Activations
    weight_snr: dict[str, float]
    output_snr: dict[str, float]
    effect: float
    norms: tuple[Norm, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """The whole model, simulated in one way.

    Attributes:
        granularity: One of ``GRANULARITIES``.
        weights: Whether the weights are int8.
        activations: Whether the activations are int8.
        kept: Names of the layers that stay float32.
        treatment: One of ``TREATMENTS``.
        num_images: Number of images.
        num_agreeing: Number of images for which int8 and float32 predict the same class.
        num_lost: Number of images for which float32 is right and int8 is wrong. Without labels they are the images
            for which both disagree.
        num_gained: Number of images for which int8 is right and float32 is wrong. Without labels it is 0.
        accuracy: Top-1 accuracy in percent; None without labels.
        logits_snr: Signal over noise of the logits in dB. The signal is the part that differs between classes.
    """

    granularity: str
    weights: bool
    activations: bool
    kept: tuple[str, ...]
    num_images: int
    num_agreeing: int
    num_lost: int
    num_gained: int
    accuracy: float | None
    logits_snr: float
    treatment: str = ''

    @property
    def agreement(self) -> float:
        """Percentage of the images for which int8 and float32 predict the same class."""
        return 100 * self.num_agreeing / self.num_images

    @property
    def drop(self) -> float:
        """Loss of top-1 accuracy in points; without labels the largest possible loss."""
        return 100 * (self.num_lost - self.num_gained) / self.num_images


@dataclass(frozen=True)
class Analysis:
    """The results of an analysis.

    Attributes:
        layers: Layers in the order in which the network computes them.
        outcomes: Outcomes of the whole model: per-tensor and per-channel; then both with only the weights in int8; then
            with only the activations in int8; then per-tensor with each treatment. If per-tensor int8 is not safe, one
            more follows, with the worst layers in float32.
        accuracy: Top-1 accuracy in float32, in percent; None without labels.
        num_classes: Number of classes of the model.
        num_images: Number of images on which the outcomes were measured.
        num_calibration: Number of images on which the ranges were measured.
        was_switched: Whether the checkpoint was in train form.
    """

    layers: tuple[Layer, ...]
    outcomes: tuple[Outcome, ...]
    accuracy: float | None
    num_classes: int
    num_images: int
    num_calibration: int
    was_switched: bool = False

    def find(
        self,
        granularity: str,
        weights: bool = True,
        activations: bool = True,
        keeping: bool = False,
        treatment: str = '',
    ) -> Outcome:
        """Find the outcome with these settings.

        Args:
            granularity: One of ``GRANULARITIES``.
            weights: Whether the weights are int8.
            activations: Whether the activations are int8.
            keeping: Whether some layers stay float32.
            treatment: One of ``TREATMENTS``.

        Raises:
            KeyError: If there is no such outcome.
        """
        wanted = (granularity, weights, activations, keeping, treatment)
        for outcome in self.outcomes:
            settings = (
                outcome.granularity,
                outcome.weights,
                outcome.activations,
                bool(outcome.kept),
                outcome.treatment,
            )
            if settings == wanted:
                return outcome
        raise KeyError(wanted)
