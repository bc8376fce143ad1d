"""safetensors files: weights, and the config from which the model is built."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .format import ENTRY, Format

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .exported_model import ExportedModel
    from .metadata import ExportMetadata

# Types that a file may use in its config, and settings that have no effect on inference.
_TYPES = {
    *('ImageClassifier', 'RepVGG', 'GlobalAveragePooling', 'LinearClsHead', 'AuxiliaryClsHead'),
    *('BN', 'BN2d', 'SyncBN', 'MMSyncBN', 'Conv2d', 'ReLU', 'ReLU6', 'SiLU', 'Swish', 'HSwish', 'GELU', 'LeakyReLU'),
    *('Sigmoid', 'HSigmoid'),
}
_TRAINING_ONLY = ('init_cfg', 'loss', 'train_cfg', 'data_preprocessor', 'pretrained', 'aux_loss_weight')
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

        slim = _drop_training(model_cfg)
        if unknown := _find_unknown(slim):
            raise ExportError(
                f'a safetensors file can describe models of {", ".join(sorted(_TYPES))}, got {", ".join(unknown)}; '
                'export to another format'
            )
        dtype = DTYPES[metadata.precision]
        weights = {key: value.to(dtype).contiguous() for key, value in model.state_dict().items()}
        write_safetensors(weights, path, {ENTRY: metadata.to_json(), _MODEL: json.dumps(slim)})

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
            # A registry imports and builds every type that it is given, and anybody can write a type into a file.
            if not model_cfg or (unknown := _find_unknown(model_cfg)):
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


def _find_unknown(node: Any) -> list[str]:
    """The types in a config that are not in ``_TYPES``, and the keys that a registry interprets."""
    return sorted(set(_iterate_unknown(node)))


def _iterate_unknown(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        for key, value in node.items():
            if key == 'type':
                name = str(value).removeprefix('mmrepvgg.').removeprefix('mmpretrain.')
                if name not in _TYPES:
                    yield name
            elif str(key).startswith('_') or key in _TRAINING_ONLY:
                yield str(key)
        node = list(node.values())
    if isinstance(node, list | tuple):
        for value in node:
            yield from _iterate_unknown(value)


def _drop_training(node: Any) -> Any:
    if isinstance(node, dict):
        return {key: _drop_training(value) for key, value in node.items() if key not in _TRAINING_ONLY}
    return [_drop_training(value) for value in node] if isinstance(node, list | tuple) else copy.copy(node)
