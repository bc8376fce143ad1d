"""Core ML's packages (.mlpackage). They are written on any system, and run on macOS and Apple's devices only."""

import contextlib
import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .coreml_package import INPUT, LAYOUTS, MODEL, OUTPUT
from .format import GraphFormat

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata


class CoremlFormat(GraphFormat):
    """A folder with an ML program, for iOS 15, macOS 12 and later.

    With preprocessing inside the input is one picture: Core ML makes it of a camera's buffer, and makes batches of
    pictures itself. There are no uint8 tensors in Core ML.

    On other systems than macOS the export reads the package back, and PyTorch computes its program
    (:class:`~.coreml_program.Program`). The way through Core ML itself (:meth:`load`) was written by coremltools'
    documentation. It has never been run, for want of a Mac; in its test Apple's library is a stand-in.
    """

    name = 'Core ML'
    suffixes = ('.mlpackage',)
    precisions = ('fp32', 'fp16')
    packages = ('coremltools',)
    extra = 'coreml'
    marker = MODEL
    checks = (
        'the program and the weights in the file, computed by PyTorch; its input and output; its metadata; its SHA-256'
    )

    def check(self, *, dynamic_batch: bool = True, with_preprocess: bool = False, **options: Any) -> None:
        super().check(dynamic_batch=dynamic_batch, with_preprocess=with_preprocess, **options)
        if with_preprocess and not dynamic_batch:
            raise ValueError(
                'Core ML files with preprocessing take one picture, and Core ML makes batches of any number of them; '
                'leave out `dynamic_batch`'
            )

    def find_obstacle(self) -> str:
        return '' if sys.platform == 'darwin' else 'Core ML runs on macOS only'

    def write_graph(
        self, network: 'nn.Module', path: Path, example: 'Tensor', metadata: 'ExportMetadata', opset: int | None
    ) -> None:
        import torch

        from .coreml_package import import_coremltools, list_ranges, seal_package
        from .quiet import quiet

        ct = import_coremltools()
        # what is not the default does not run on the Neural Engine
        defaults = (metadata.batch_size or 1, metadata.channels, *metadata.input_size)
        ranges = list_ranges(metadata)
        shape = ct.Shape(
            [
                low if low == high else ct.RangeDim(low, high, default=default)
                for (low, high), default in zip(ranges, defaults, strict=True)
            ]
        )
        free = {axis: torch.export.Dim.DYNAMIC for axis, (low, high) in enumerate(ranges) if low < high}
        if metadata.with_preprocess:
            example = example[:1].float()
            image = ct.ImageType(INPUT, shape=shape, color_layout=_find_layout(metadata.channels))
        else:
            image = ct.TensorType(INPUT, shape=shape)
        # its progress bars are on stderr
        with quiet(), open(os.devnull, 'w') as sink, contextlib.redirect_stderr(sink):
            program = torch.export.export(network, (example,), dynamic_shapes=(free,)).run_decompositions({})
            ct.convert(
                program,
                inputs=[image],
                outputs=[ct.TensorType(OUTPUT)],
                convert_to='mlprogram',
                minimum_deployment_target=ct.target.iOS15,
                # the types of the network stay as they are; by default all becomes fp16
                compute_precision=ct.precision.FLOAT32,
                skip_model_load=True,
                package_dir=str(path),
            )
        seal_package(path, metadata)

    def load_to_check(self, path: Path) -> 'ExportedModel':
        if not self.find_obstacle():
            return self.load(path, None)
        import torch

        from .coreml_package import read_package
        from .coreml_program import Program
        from .exported_model import ExportedModel

        spec, metadata = read_package(path)
        program = Program(spec, path)

        def run(x: 'Tensor') -> 'Tensor':
            x = x.float()
            return torch.cat([program(picture) for picture in x.split(1)]) if metadata.with_preprocess else program(x)

        return ExportedModel(path, run, metadata)

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        """Read a package for Core ML on the CPU. Core ML itself chooses the number of threads. Never run so far."""
        import numpy as np
        import torch
        from PIL import Image

        from ..checkpoints.reading import CheckpointError
        from .coreml_package import import_coremltools, read_package
        from .exported_model import ExportedModel

        ct = import_coremltools()
        _, metadata = read_package(path)
        try:
            with warnings.catch_warnings():
                # coremltools only warns of a package that Core ML does not take
                warnings.simplefilter('error', RuntimeWarning)
                model = ct.models.MLModel(str(path), compute_units=ct.ComputeUnit.CPU_ONLY)
        except Exception as error:  # coremltools raises many kinds of error here
            raise CheckpointError(f'Core ML can not load {path}: {error}') from error

        def run(x: 'Tensor') -> 'Tensor':
            images = x.cpu().contiguous().numpy()
            if not metadata.with_preprocess:
                return torch.from_numpy(np.asarray(model.predict({INPUT: images})[OUTPUT], np.float32)).to(x.device)
            # (N, C, H, W) in BGR -> N times (H, W, 3) in RGB, or (H, W)
            pictures = [
                Image.fromarray(np.ascontiguousarray(image[::-1].transpose(1, 2, 0) if len(image) == 3 else image[0]))
                for image in images
            ]
            outputs = model.predict([{INPUT: picture} for picture in pictures])
            scores = np.concatenate([np.asarray(output[OUTPUT], np.float32) for output in outputs])
            return torch.from_numpy(scores).to(x.device)

        return ExportedModel(path, run, metadata)


COREML = CoremlFormat()


def _find_layout(channels: int) -> Any:
    from .coreml_package import import_coremltools
    from .network import ExportError

    if channels not in LAYOUTS:
        raise ExportError(
            f'Core ML has pictures of {" or ".join(map(str, LAYOUTS))} channels, got {channels}; leave out '
            '`with_preprocess`'
        )
    return getattr(import_coremltools().colorlayout, LAYOUTS[channels])
