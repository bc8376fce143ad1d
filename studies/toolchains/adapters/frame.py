"""The frame of an adapter: it reads the images and writes the outputs. Needs numpy alone."""

import argparse
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

# The modes of an adapter: the model as it is, and int8 with one scale for a weight or one for each of its channels.
FLOAT, PER_TENSOR, PER_CHANNEL = 'float', 'per-tensor', 'per-channel'
MODES = (FLOAT, PER_TENSOR, PER_CHANNEL)

# A function from an image (1, C, H, W) to its scores, of any shape.
Predict = Callable[[np.ndarray], np.ndarray]
# A function that makes the file of a toolchain and loads it. Its arguments are the float file, the images for the
# calibration (1, C, H, W), the mode, and an empty folder.
Build = Callable[[Path, Sequence[np.ndarray], str, Path], Predict]


def main(build: Build) -> None:
    """Run an adapter with the arguments of the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument('model', type=Path, help='float file')
    parser.add_argument('calibration', type=Path, help='images for the calibration (.npy)')
    parser.add_argument('test', type=Path, help='folder of mmrepvgg export-inputs with the images to run')
    parser.add_argument('out', type=Path, help='file for mmrepvgg score-outputs (.npz)')
    parser.add_argument('--mode', choices=MODES, required=True)
    args = parser.parse_args()

    images = np.load(args.calibration)
    test = sorted((args.test / 'inputs').glob('*.npz'))  # an image a file
    with tempfile.TemporaryDirectory() as scratch:
        predict = build(args.model, np.split(images, len(images)), args.mode, Path(scratch))
        scores = [np.asarray(predict(np.load(path)['images']), np.float32).reshape(-1) for path in test]
    temporary = args.out.with_name(f'.{args.out.name}')
    np.savez(temporary, names=np.array([path.stem for path in test]), scores=np.stack(scores))
    os.replace(temporary, args.out)
