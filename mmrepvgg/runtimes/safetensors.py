"""safetensors files: weights, and the config from which the model is built."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..checkpoints.safetensors_header import read_texts
from ..models.plain_configs import KNOWN_TYPES, drop_training, find_unknown
from .format import ENTRY, Format

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata

_MODEL = f'{ENTRY}_model'


class SafetensorsFormat(Format):
    """A file without a program. PyTorch runs it, for images of any size."""

    name = 'safetensors'
    suffixes = ('.safetensors',)
    packages = ('safetensors',)
    extra = 'safetensors'
    any_size = True

    def write(
        self,
        model: 'nn.Module',
        path: Path,
        metadata: 'ExportMetadata',
        *,
        model_cfg: Any = None,
        opset: int | None = None,
    ) -> None:
        from ..checkpoints.safetensors_files import write_safetensors
        from .network import DTYPES, ExportError

        slim = drop_training(model_cfg)
        if unknown := find_unknown(slim):
            raise ExportError(
                f'a safetensors file can describe models of {", ".join(sorted(KNOWN_TYPES))}, got '
                f'{", ".join(unknown)}; export to another format'
            )
        dtype = DTYPES[metadata.precision]
        weights = {key: value.to(dtype).contiguous() for key, value in model.state_dict().items()}
        write_safetensors(weights, path, {ENTRY: metadata.to_json(), _MODEL: json.dumps(slim)})

    def may_hold(self, path: Path) -> bool:
        texts = read_texts(path)
        return texts is None or ENTRY in texts  # weights alone, as others write them, are a checkpoint

    def load(self, path: Path, num_threads: int | None) -> 'ExportedModel':
        from .exported_model import ExportedModel, set_torch_threads

        set_torch_threads(num_threads)
        network, metadata = self._read(path)
        return ExportedModel(path, network, metadata)

    def load_layers(self, path: Path) -> 'Callable[[Tensor], dict[str, Tensor]]':
        from ..reparam.layers import record_layers

        network: Any = self._read(path)[0]
        return lambda x: record_layers(network.model, x.to(network.dtype))[1]

    @staticmethod
    def _read(path: Path) -> 'tuple[nn.Module, ExportMetadata]':
        import torch
        from mmengine.config import Config

        from ..checkpoints.reading import CheckpointError, as_checkpoint_errors
        from ..checkpoints.safetensors_files import read_safetensors
        from ..models.building import build_model
        from .metadata import ExportMetadata
        from .network import DeployedNetwork

        weights, record = read_safetensors(path)
        if _MODEL not in record:
            raise CheckpointError(
                f'{path} holds weights without their network, as `export_model` writes it; `convert_checkpoint` makes '
                'a checkpoint (.pth) of them'
            )
        metadata = ExportMetadata.from_json(record.get(ENTRY), path)
        with as_checkpoint_errors(path):
            model_cfg = json.loads(record[_MODEL])
            if not model_cfg or (unknown := find_unknown(model_cfg)):
                found = ', '.join(unknown) if model_cfg else 'none'
                raise CheckpointError(f'{path} must describe a classifier of this project, got {found}')
            arch = model_cfg['backbone']['arch']
            if isinstance(arch, dict) and sum(arch['num_blocks']) > len(weights):
                raise CheckpointError(f'{path} describes more blocks than it has weights')
            # without memory: a file may describe layers of any width
            with torch.device('meta'):
                model = build_model(Config(dict(model=model_cfg, default_scope='mmrepvgg')), deploy=True)
        try:
            model.load_state_dict(weights, assign=True)
        except RuntimeError as error:
            raise CheckpointError(f'the weights in {path} do not fit the model that it describes: {error}') from error
        return DeployedNetwork(model, metadata.precision).eval(), metadata


SAFETENSORS = SafetensorsFormat()
