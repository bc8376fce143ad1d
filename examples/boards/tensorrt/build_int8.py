"""Calibrate and build an int8 engine with TensorRT 8.6 to 10, and run it on test images.

Not tried: there was no GPU. Only the names were checked against NVIDIA's type stubs and documentation.

python build_int8.py MODEL.onnx NET.plan CALIBRATION/ INPUTS/ OUTPUTS/

MODEL.onnx is a file of ``mmrepvgg export --no-dynamic-batch --batch-size 16``, the folders are those of ``mmrepvgg
export-inputs --format npy --batch-size 16 --fill``. NET.cache beside the engine keeps the ranges, for ``trtexec
--calib`` too. TensorRT 11 has no calibrators any more.
"""

import sys
from pathlib import Path

import numpy as np
import tensorrt as trt
import torch

LOGGER = trt.Logger(trt.Logger.WARNING)
MAX_BATCHES = 32


class Calibrator(trt.IInt8EntropyCalibrator2):
    """Gives TensorRT the batches of a folder."""

    def __init__(self, folder: Path, cache: Path):
        trt.IInt8EntropyCalibrator2.__init__(self)
        files = sorted((folder / 'inputs').glob('*.npy'))[:-1]  # the last one may be filled up with zeros
        self.files = iter(files[:: -(-len(files) // MAX_BATCHES)])
        self.batch = torch.from_numpy(np.load(files[0])).cuda()
        self.cache = cache

    def get_batch_size(self) -> int:
        return len(self.batch)

    def get_batch(self, names: list[str]) -> list[int]:
        file = next(self.files, None)
        if file is None:
            return []
        self.batch.copy_(torch.from_numpy(np.load(file)))
        torch.cuda.synchronize()
        return [self.batch.data_ptr()]

    def read_calibration_cache(self) -> bytes | None:
        return self.cache.read_bytes() if self.cache.exists() else None

    def write_calibration_cache(self, cache: memoryview) -> None:
        self.cache.write_bytes(cache)


def build(model: Path, calibrator: Calibrator) -> trt.IHostMemory:
    builder = trt.Builder(LOGGER)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))
    parser = trt.OnnxParser(network, LOGGER)
    if not parser.parse(model.read_bytes()):
        sys.exit('\n'.join(str(parser.get_error(number)) for number in range(parser.num_errors)))
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.INT8)
    config.set_flag(trt.BuilderFlag.FP16)  # for what is not int8
    config.int8_calibrator = calibrator
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        sys.exit(f'TensorRT can not build {model}')
    return plan


def run(plan: trt.IHostMemory, folder: Path, out: Path) -> None:
    engine = trt.Runtime(LOGGER).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    scores = torch.empty(tuple(engine.get_tensor_shape('scores')), device='cuda')
    context.set_tensor_address('scores', scores.data_ptr())
    stream = torch.cuda.Stream()
    out.mkdir(exist_ok=True)
    for path in sorted((folder / 'inputs').glob('*.npy')):
        images = torch.from_numpy(np.load(path)).cuda()
        torch.cuda.synchronize()
        context.set_tensor_address('images', images.data_ptr())
        context.execute_async_v3(stream.cuda_stream)
        stream.synchronize()
        np.save(out / path.name, scores.cpu().numpy())


def main(model: str, plan_path: str, calibration: str, inputs: str, outputs: str) -> None:
    plan = build(Path(model), Calibrator(Path(calibration), Path(plan_path).with_suffix('.cache')))
    Path(plan_path).write_bytes(plan)
    run(plan, Path(inputs), Path(outputs))


if __name__ == '__main__':
    if len(sys.argv) != 6:
        sys.exit('usage: build_int8.py MODEL.onnx NET.plan CALIBRATION/ INPUTS/ OUTPUTS/')
    main(*sys.argv[1:])
