"""The int8 models that can be made of a network: with or without rounded weights."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..equalization.equalize import NothingToRescaleError, equalize
from ..progress import track
from ..runtimes.prepared import PreparedModel
from ..runtimes.quantizer import Int8Model
from .analysis.observe import observe_activations
from .measuring import BATCH_SIZE, Run, get_images, load_file
from .plan import Plan
from .rounding import NUM_IMAGES, round_weights


@dataclass(frozen=True)
class Candidate:
    """An int8 model.

    Attributes:
        int8: The model.
        was_rounded: Whether its weights were rounded so that their errors make up for each other.
        float_size: Size of the same file in float32, in bytes.
    """

    int8: Int8Model
    was_rounded: bool
    float_size: int


class Candidates:
    """Makes int8 models of one network.

    Args:
        prepared: The prepared model.
        plan: The way in which files are made.
        images: Batches of calibration images, as inputs of the file. There may be none, if the plan needs none.
        folder: Folder for temporary files.

    Attributes:
        best: The model that the plan asks for.
        num_equalized: Number of channels that were rescaled.
        path: File that is written and run for each trial.
        metadata: Description of that file. It takes any batch size, because single images and batches are run.
    """

    def __init__(self, prepared: PreparedModel, plan: Plan, images: Sequence[np.ndarray], folder: Path):
        self.plan, self.images, self.folder = plan, images, folder
        self.batches = [get_images(prepared, inputs) for inputs in images]
        self.metadata = replace(prepared.metadata, batch_size=None)
        self.path = folder / f'candidate{plan.row.suffixes[0]}'
        self.network: Any = prepared.deployed
        self.num_equalized = 0
        if plan.equalizes:
            self._equalize()
        self.best = self.make(rounds=plan.rounds_adaptively)

    def make(self, *, rounds: bool) -> Candidate:
        """Make an int8 model."""
        plan, network = self.plan, copy.deepcopy(self.network)
        if rounds:
            self._round(network)
        float_path = self.folder / f'float{plan.source.suffixes[0]}'
        plan.source.write(network, float_path, replace(self.metadata, precision='fp32'))
        if plan.ranges is not None:
            int8 = plan.quantizer.use_ranges(float_path, plan.ranges, granularity=plan.granularity)
        else:
            int8 = plan.quantizer.calibrate(
                float_path,
                track(self.images, 'calibration'),
                granularity=plan.granularity,
                calibration=plan.settings.calibration,
            )
        return Candidate(int8, rounds, plan.source.measure_size(float_path))

    def write(self, candidate: Candidate) -> Run:
        """Write and load a file with all layers in int8."""
        candidate.int8.write(self.path, self.metadata)
        return load_file(self.path)

    def _equalize(self) -> None:
        try:
            result = equalize(self.network, track(self.batches, 'equalizing') if self.batches else None)
        except NothingToRescaleError:
            if self.plan.settings.equalize:  # asked for, and not by default
                raise
        else:
            self.network, self.num_equalized = result.model, result.num_channels

    def _round(self, network: nn.Module) -> None:
        ranges = observe_activations(network, track(self.batches, 'observing'))
        few = torch.cat(self.batches[: -(-NUM_IMAGES // BATCH_SIZE)])[:NUM_IMAGES].split(BATCH_SIZE)
        round_weights(network, few, ranges, self.plan.granularity)
