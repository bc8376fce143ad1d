"""The backbone of a detector or segmentor as an ONNX file, switched; its feature maps are compared with the checkpoint.

Any backbone will do: what one convolution can compute is found by structure.

python examples/detection/export_backbone.py CONFIG CHECKPOINT backbone.onnx --size 64 64
"""

import argparse
from pathlib import Path

import onnxruntime
import torch
from mmengine.registry import MODELS

import mmrepvgg.registry  # noqa: F401  (lets torch load a training's checkpoint safely)
from mmrepvgg import load_config, reparameterize


def export_backbone(config: str, checkpoint: str, destination: str, size: tuple[int, int]) -> list[float]:
    """Write the file, run it, and return the largest difference of each feature map, relative to its largest value."""
    cfg = load_config(config)
    model = MODELS.build({**cfg.model, '_scope_': cfg.default_scope}).eval()
    model.load_state_dict(torch.load(checkpoint, map_location='cpu', weights_only=True)['state_dict'])
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))  # as after the normalisation
    with torch.no_grad():
        expected = model.backbone(images)
    names = [f'feature_{index}' for index in range(len(expected))]
    free = torch.export.Dim.DYNAMIC
    torch.onnx.export(
        reparameterize(model.backbone, images),
        (images,),
        destination,
        input_names=['images'],
        output_names=names,
        dynamic_shapes=({0: free, 2: free, 3: free},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    found = onnxruntime.InferenceSession(destination).run(names, {'images': images.numpy()})
    return [
        ((torch.from_numpy(array) - tensor).abs().max() / tensor.abs().max()).item()
        for array, tensor in zip(found, expected, strict=True)
    ]


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    parser.add_argument('destination')
    parser.add_argument('--size', type=int, nargs=2, default=(224, 224), metavar=('H', 'W'))
    args = parser.parse_args()
    differences = export_backbone(args.config, args.checkpoint, args.destination, tuple(args.size))
    if not max(differences) < 1e-4:
        Path(args.destination).unlink()
        parser.exit(1, f'the file differed from the checkpoint by {max(differences):.1e} and was removed\n')
    print(f'{args.destination}: {len(differences)} feature maps, largest difference {max(differences):.1e}')
