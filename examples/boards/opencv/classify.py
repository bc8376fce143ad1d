"""The five best classes of images, by OpenCV's DNN module, from a file of ``mmrepvgg export --softmax``.

python examples/boards/opencv/classify.py MODEL.onnx LABELS.txt SHORT_EDGE SIZE IMAGE...
"""

import sys

import cv2
import numpy as np
from PIL import Image

# RGB, as in the metadata of the file
MEAN = np.float32([123.675, 116.28, 103.53])
STD = np.float32([58.395, 57.12, 57.375])


def read_image(path: str, edge: int, size: int) -> np.ndarray:
    """Read an image as ImageNet's recipes do: ``(1, 3, size, size)``, normalised."""
    pixels = cv2.imread(path)
    if pixels is None:
        sys.exit(f'{path} can not be read')
    height, width = pixels.shape[:2]
    edges = (edge, int(edge * height / width)) if width < height else (int(edge * width / height), edge)
    # not cv2.resize, which leaves aliases
    resized = np.asarray(Image.fromarray(pixels).resize(edges, Image.Resampling.BILINEAR))
    top, left = (round((length - size) / 2) for length in resized.shape[:2])
    image = resized[top : top + size, left : left + size, ::-1]
    return np.ascontiguousarray(((image - MEAN) / STD).transpose(2, 0, 1)[None], np.float32)


def main(model: str, labels_path: str, edge: int, size: int, images: list[str]) -> None:
    network = cv2.dnn.readNetFromONNX(model)
    with open(labels_path, encoding='utf-8') as file:
        labels = file.read().splitlines()
    for path in images:
        network.setInput(read_image(path, edge, size))
        scores = network.forward()[0]
        best = np.argsort(-scores)[:5]
        print(f'{path}: ' + '; '.join(f'{labels[label]} {scores[label]:.6f}' for label in best))


if __name__ == '__main__':
    if len(sys.argv) < 6:
        sys.exit('usage: classify.py MODEL.onnx LABELS.txt SHORT_EDGE SIZE IMAGE...')
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5:])
