"""What an analysis finds. Imports no torch."""

from dataclasses import dataclass

# What is tried where per-tensor int8 is not safe: limiting the batch norms' scales to so many times their median.
CLIP_SCALES = 4.0


@dataclass(frozen=True)
class Kernel:
    """The fused kernel of a layer.

    Attributes:
        abs_max: Largest absolute weight.
        max_over_std: That over the standard deviation of all weights.
        centre_over_rest: Largest absolute weight at the centre tap over that of the other taps; None without others.
        channel_spread: Over the output channels' largest absolute weights: largest over median; zeros do not count.
        channel_maxima: Quantiles of these, evenly spaced from the smallest to the largest.
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
        percentile: 99.99% of the absolute values are not above this (to 1.6%).
        channel_spread: Over the channels' largest absolute values: the largest over the median; zeros do not count.
    """

    low: float
    high: float
    percentile: float
    channel_spread: float

    @property
    def outlier_ratio(self) -> float:
        """The largest absolute value over the percentile: how much of the range serves one value in ten thousand."""
        largest = max(abs(self.low), abs(self.high))
        return largest / self.percentile if self.percentile else 1.0


@dataclass(frozen=True)
class Norm:
    """A batch norm of a block before its branches were fused.

    Attributes:
        branch: ``'3x3'``, ``'1x1'``, ``'identity'``, or another norm's name in the block.
        scale: Median over the channels of ``|gamma| / sqrt(var + eps)``.
        largest_scale: The largest.
        smallest_variance: Of the running variances.
        num_dead: Channels with a running variance below eps: what reaches them hardly varies, and the norm enlarges it
            as far as eps lets it.
    """

    branch: str
    scale: float
    largest_scale: float
    smallest_variance: float
    num_dead: int

    @property
    def spread(self) -> float:
        """The largest scale over the median."""
        return self.largest_scale / self.scale if self.scale else 1.0


@dataclass(frozen=True)
class Layer:
    """A convolution or linear layer of the deploy form. Dicts have an entry for each of ``GRANULARITIES``.

    Attributes:
        name: Its block's name in the model, or its own.
        kernel: Its weights.
        inputs: What reaches it.
        weight_snr: Signal over quantization noise of the weights, dB: the lower quartile over the output channels,
            because a tensor's total would be that of its largest channels alone.
        output_snr: Likewise of its output when its input and its weights are int8 and nothing else is. The signal is
            what varies: a constant could be the bias.
        effect: Signal over noise of the model's logits when this layer alone is int8, per-tensor, dB.
        norms: Those that were fused into it; none if the checkpoint was in deploy form.
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
        activations: Whether the activations are.
        kept: Layers that stay float32.
        clip_scales: To how many times their median the batch norms' scales were limited first; None if they were not.
        num_images: On how many images.
        num_agreeing: For how many of them it predicts the same class as float32.
        num_lost: Images that float32 classifies correctly and this does not; without labels those that disagree.
        num_gained: The other way; without labels 0.
        accuracy: Top-1 in percent; None without labels.
        logits_snr: Signal over noise of the logits, dB. The signal is what varies between classes and images.
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
    clip_scales: float | None = None

    @property
    def agreement(self) -> float:
        """Percent of the images."""
        return 100 * self.num_agreeing / self.num_images

    @property
    def drop(self) -> float:
        """Points of top-1 accuracy; without labels the most that it can be."""
        return 100 * (self.num_lost - self.num_gained) / self.num_images


@dataclass(frozen=True)
class Analysis:
    """All that an analysis finds.

    Attributes:
        layers: In the order in which the network computes them.
        outcomes: The whole model per-tensor and per-channel, then the same with weights or activations alone in int8,
            and last, where per-tensor loses, with the worst layers kept in float32 and, of a train form, with the
            batch norms' scales limited.
        accuracy: Of float32, percent; None without labels.
        num_classes: That the model knows.
        num_images: On which the outcomes were found.
        num_calibration: Images that gave the ranges.
        was_switched: Whether the checkpoint was in train form.
    """

    layers: tuple[Layer, ...]
    outcomes: tuple[Outcome, ...]
    accuracy: float | None
    num_classes: int
    num_images: int
    num_calibration: int
    was_switched: bool = False

    def find(self, granularity: str, weights: bool = True, activations: bool = True, keeping: bool = False) -> Outcome:
        """The outcome of these settings; ``keeping`` is that with layers in float32.

        Raises:
            KeyError: If there is none.
        """
        for outcome in self.outcomes:
            settings = (outcome.granularity, outcome.weights, outcome.activations, bool(outcome.kept))
            if settings == (granularity, weights, activations, keeping) and outcome.clip_scales is None:
                return outcome
        raise KeyError((granularity, weights, activations, keeping))

    def find_clipped(self) -> Outcome | None:
        """The outcome with limited scales; None if that was not tried."""
        return next((outcome for outcome in self.outcomes if outcome.clip_scales is not None), None)
