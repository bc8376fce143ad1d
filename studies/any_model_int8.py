"""int8 of networks of timm as they are trained and as the switch leaves them: the table of docs/any-model.md.

python -m studies.any_model_int8                                  # about 10 minutes of CPU
python -m studies.any_model_int8 --models mobileone_s0 --epochs 1
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

from mmrepvgg import QuantizationSettings, __version__, reparameterize
from mmrepvgg.progress import track
from mmrepvgg.quantization.candidates import Candidates
from mmrepvgg.quantization.plan import make_plan
from mmrepvgg.runtimes.metadata import ExportMetadata
from mmrepvgg.runtimes.onnx import ONNX
from mmrepvgg.runtimes.openvino import OPENVINO
from mmrepvgg.runtimes.prepared import PreparedModel
from mmrepvgg.tables import format_table

SIZE, NUM_CALIBRATION = 32, 300
_PLAIN = dict(equalize=False, adaptive_rounding=False)
# Column, format and settings.
KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    'ONNX per-channel': (ONNX, {}),
    'ONNX per-tensor': (ONNX, dict(granularity='per-tensor')),
    'the same, plain': (ONNX, dict(granularity='per-tensor', **_PLAIN)),
    'OpenVINO per-channel': (OPENVINO, {}),
}


def read_digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images ``(N, 3, 32, 32)`` and labels, and those to test with."""
    digits = load_digits()
    small = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
    images = F.interpolate(small, size=(SIZE, SIZE), mode='bilinear').expand(-1, 3, -1, -1).contiguous()
    labels = torch.tensor(digits.target)
    train, test = train_test_split(range(len(labels)), test_size=0.2, random_state=0, stratify=digits.target)
    return images[train], labels[train], images[test], labels[test]


def train(name: str, images: Tensor, labels: Tensor, epochs: int) -> nn.Module:
    """Train a network of timm from random weights."""
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=10)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.02)
    batches = [order for _ in range(epochs) for order in torch.randperm(len(images)).split(64) if len(order) == 64]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, len(batches))
    for batch in track(batches, f'training {name}'):
        loss = F.cross_entropy(network(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def measure_top1(network: Any, images: Tensor, labels: Tensor) -> float:
    hits = [(network(x).argmax(1) == y).sum() for x, y in zip(images.split(16), labels.split(16), strict=True)]
    return 100 * int(sum(hits)) / len(labels)


def quantize(network: nn.Module, row: Any, settings: dict[str, Any], calibration: Tensor, folder: Path) -> Any:
    """The function of an int8 file."""
    metadata = ExportMetadata(
        arch='', classes=(), num_classes=10, channels=3, input_size=(SIZE, SIZE), batch_size=None, mean=(), std=(),
        to_rgb=False, precision='int8', with_preprocess=False, softmax=False, source_sha256='', version=__version__,
    )  # fmt: skip
    prepared = PreparedModel(network, network, metadata, was_switched=False)
    plan = make_plan(row, QuantizationSettings(**settings))
    candidates = Candidates(prepared, plan, [batch.numpy() for batch in calibration.split(16)], folder)
    run = candidates.write(candidates.best)
    return lambda x: run(x.numpy())


def measure(name: str, epochs: int) -> Iterator[list[str]]:
    """The rows of a network: as it is trained, and switched."""
    images, labels, test, truth = read_digits()
    network = train(name, images, labels, epochs)
    for form, each in (('as trained', network), ('switched', reparameterize(network, test[:16]))):
        cells = [f'{measure_top1(each, test, truth):.2f}']
        for row, settings in KINDS.values():
            with tempfile.TemporaryDirectory() as folder:
                run = quantize(each, row, settings, images[:NUM_CALIBRATION], Path(folder))
                cells.append(f'{measure_top1(run, test, truth):.2f}')
        num_layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in each.modules())
        yield [name, form, str(num_layers), *cells]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--models', nargs='+', default=['mobileone_s0', 'repghostnet_050'])
    parser.add_argument('--epochs', type=int, default=6)
    args = parser.parse_args()
    rows = [row for name in args.models for row in measure(name, args.epochs)]
    print(format_table(['network', 'form', 'layers', 'float32', *KINDS], rows, left=2))
