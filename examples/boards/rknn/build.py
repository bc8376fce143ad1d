"""Build a file for a Rockchip NPU, and run it on test images in rknn-toolkit2's simulator.

python build.py MODEL.onnx NET.rknn --calibration CALIBRATION/ --test INPUTS/ --scores SCORES.npz [--weights layer]

MODEL.onnx is a file of ``mmrepvgg export --opset 17 --no-dynamic-batch``, without preprocessing: the board subtracts
the mean and divides by the std, both from the file's metadata, and so takes pixels, RGB. The folders are those of
``mmrepvgg export-inputs --dtype uint8 --format npy``.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
import onnx
from rknn.api import RKNN


def read_pixels(path: Path) -> np.ndarray:
    """Read an image of ``export-inputs`` ``(1, 3, H, W)``, BGR, as RGB."""
    return np.ascontiguousarray(np.load(path)[:, ::-1])


def check(status: int, name: str) -> None:
    """The functions of the toolkit print their errors, and return a status that is not 0."""
    if status:
        raise SystemExit(f'{name} failed with status {status}')


def build(args: argparse.Namespace) -> RKNN:
    properties = {entry.key: entry.value for entry in onnx.load(args.model).metadata_props}
    metadata = json.loads(properties['mmrepvgg'])
    rknn = RKNN(verbose=False)
    quantization = dict(quantized_method=args.weights) if args.weights != 'float' else {}
    check(
        rknn.config(
            mean_values=[metadata['mean']], std_values=[metadata['std']], target_platform=args.target, **quantization
        ),
        'config',
    )
    check(rknn.load_onnx(str(args.model)), 'load_onnx')
    files = sorted((args.calibration / 'inputs').glob('*.npy'))
    with tempfile.TemporaryDirectory() as folder:
        names = []
        for path in files[:: -(-len(files) // args.num_samples)]:
            names.append(f'{folder}/{path.name}')
            np.save(names[-1], read_pixels(path))
        dataset = Path(folder, 'dataset.txt')
        dataset.write_text('\n'.join(names))
        check(rknn.build(do_quantization=args.weights != 'float', dataset=str(dataset)), 'build')
    check(rknn.export_rknn(str(args.out)), 'export_rknn')
    return rknn


def simulate(rknn: RKNN, folder: Path, out: Path) -> None:
    check(rknn.init_runtime(), 'init_runtime')
    paths = sorted((folder / 'inputs').glob('*.npy'))
    scores = [rknn.inference(inputs=[read_pixels(path)], data_format=['nchw'])[0].reshape(-1) for path in paths]
    np.savez(out, names=np.array([path.stem for path in paths]), scores=np.stack(scores))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', type=Path)
    parser.add_argument('out', type=Path)
    parser.add_argument('--target', default='rk3588', help='NPU (default: rk3588)')
    parser.add_argument(
        '--weights',
        choices=['channel', 'layer', 'float'],
        default='channel',
        help='int8 scales: one for each channel, one for a layer, or none, float16 (default: channel)',
    )
    parser.add_argument('--calibration', type=Path, required=True, help='training images')
    parser.add_argument('--num-samples', type=int, default=100, help='of them, at most (default: 100)')
    parser.add_argument('--test', type=Path, help='images for the simulator')
    parser.add_argument('--scores', type=Path, help='its scores, for mmrepvgg score-outputs')
    args = parser.parse_args()
    rknn = build(args)
    if args.test and args.scores:
        simulate(rknn, args.test, args.scores)
    rknn.release()


if __name__ == '__main__':
    main()
