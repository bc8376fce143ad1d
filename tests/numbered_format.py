"""A format that is added by this one file: TorchScript with a checksum of its own in front."""

import hashlib
import io
from pathlib import Path

from mmrepvgg.runtimes.format import ENTRY, GraphFormat
from mmrepvgg.runtimes.table import FORMATS


class NumberedFormat(GraphFormat):
    name = 'numbered'
    suffixes = ('.numbered',)
    precisions = ('fp32',)
    options = frozenset({'softmax'})

    def write_graph(self, network, path: Path, example, metadata, opset) -> None:
        import torch

        buffer = io.BytesIO()
        extra = {f'{ENTRY}.json': metadata.to_json()}
        torch.jit.save(torch.jit.trace(network, example, check_trace=False), buffer, _extra_files=extra)
        path.write_bytes(hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue())

    def load(self, path: Path, num_threads):
        import torch

        from mmrepvgg.checkpoints.reading import CheckpointError
        from mmrepvgg.runtimes.exported_model import ExportedModel
        from mmrepvgg.runtimes.metadata import ExportMetadata

        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise CheckpointError(f'{path} is damaged')
        extra = {f'{ENTRY}.json': ''}
        module = torch.jit.load(io.BytesIO(content[32:]), _extra_files=extra)
        return ExportedModel(path, module.eval(), ExportMetadata.from_json(extra[f'{ENTRY}.json'], path))


FORMATS.append(NumberedFormat())
