"""Run any ONNX file in ONNX Runtime on the batches of ``mmrepvgg export-inputs --format npy``, without its metadata.

python run_onnx.py MODEL.onnx INPUTS/ OUTPUTS/
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime


def main(model: str, inputs: str, outputs: str) -> None:
    session = onnxruntime.InferenceSession(model, providers=['CPUExecutionProvider'])
    Path(outputs).mkdir(exist_ok=True)
    for path in sorted(Path(inputs, 'inputs').glob('*.npy')):
        np.save(Path(outputs, path.name), session.run(None, {'images': np.load(path)})[0])


if __name__ == '__main__':
    if len(sys.argv) != 4:
        sys.exit('usage: run_onnx.py MODEL.onnx INPUTS/ OUTPUTS/')
    main(*sys.argv[1:])
