"""ExecuTorch: PT2E quantization and the XNNPACK delegate, with their defaults."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import XNNPACKQuantizer, get_symmetric_quantization_config
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from .frame import FLOAT, PER_CHANNEL, Predict, main


def build(path: Path, images: Sequence[np.ndarray], mode: str, scratch: Path) -> Predict:
    program = torch.export.load(path)
    example = (torch.from_numpy(images[0]),)
    if mode != FLOAT:
        config = get_symmetric_quantization_config(is_per_channel=mode == PER_CHANNEL)
        prepared = prepare_pt2e(program.module(), XNNPACKQuantizer().set_global(config))
        for image in images:
            prepared(torch.from_numpy(image))
        program = torch.export.export(convert_pt2e(prepared), example)
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    file = scratch / 'model.pte'
    file.write_bytes(lowered.to_executorch().buffer)
    method = Runtime.get().load_program(file).load_method('forward')
    return lambda image: method.execute([torch.from_numpy(image)])[0].numpy().copy()


if __name__ == '__main__':
    main(build)
