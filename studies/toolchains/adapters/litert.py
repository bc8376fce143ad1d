"""LiteRT: static int8 by its quantizer (ai-edge-quantizer), with its defaults."""

from collections.abc import Sequence
from pathlib import Path

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import qtyping, quantizer, recipe, recipe_manager

from .frame import FLOAT, PER_TENSOR, Predict, main


def build(path: Path, images: Sequence[np.ndarray], mode: str, scratch: Path) -> Predict:
    file = scratch / 'model.tflite'
    module = torch.export.load(path).module()
    litert_torch.convert(module, (torch.from_numpy(images[0]),)).export(str(file))
    if mode != FLOAT:
        file = quantize(file, images, mode, scratch / 'int8.tflite')
    interpreter = Interpreter(str(file))
    interpreter.allocate_tensors()
    (source,), (destination,) = interpreter.get_input_details(), interpreter.get_output_details()

    def predict(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(source['index'], encode(image, source))
        interpreter.invoke()
        return decode(interpreter.get_tensor(destination['index']), destination)

    return predict


def quantize(path: Path, images: Sequence[np.ndarray], mode: str, destination: Path) -> Path:
    chosen = recipe.static_wi8_ai8()
    if mode == PER_TENSOR:
        manager = recipe_manager.RecipeManager()
        manager.add_static_config(
            '.*', qtyping.TFLOperationName.ALL_SUPPORTED, 8, 8, qtyping.QuantGranularity.TENSORWISE
        )
        chosen = manager.get_quantization_recipe()
    worker = quantizer.Quantizer(str(path), chosen)
    signature, details = next(iter(Interpreter(str(path)).get_signature_list().items()))
    (name,) = details['inputs']
    ranges = worker.calibrate({signature: [{name: image} for image in images]})
    worker.quantize(ranges).export_model(str(destination))
    return destination


def encode(values: np.ndarray, details: dict) -> np.ndarray:
    """Floats as a tensor of the file has them: they are int8 at the ends of an int8 file, too."""
    if details['dtype'] is np.float32:
        return values
    scale, zero = details['quantization']
    limits = np.iinfo(details['dtype'])
    return np.clip(np.round(values / scale) + zero, limits.min, limits.max).astype(details['dtype'])


def decode(values: np.ndarray, details: dict) -> np.ndarray:
    """The opposite of :func:`encode`."""
    if details['dtype'] is np.float32:
        return values.copy()
    scale, zero = details['quantization']
    return (values.astype(np.float32) - zero) * scale


if __name__ == '__main__':
    main(build)
