"""Write pictures with their predictions on them."""

import functools
import os
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from mmpretrain.structures import DataSample
from mmpretrain.visualization import UniversalVisualizer

from ..checkpoints.writing import require_writable
from ..data.images import explain_failure
from ..data.reading import LoadImageFromFile
from .fonts import find_fonts
from .predictor import Prediction

# Edges of a picture in pixels. Small images are enlarged, so that the text has room; large ones would only cost time.
SHORT_EDGE = 448
LONG_EDGE = 4096  # a limit for very long images


class PictureWriter:
    """Writes copies of images with their predictions into a folder, with mmpretrain's visualizer.

    Args:
        folder: Folder for the copies. It is made when the first picture is written.
        images: All images that will be written, and the paths of their copies relative to ``folder``. The copies are
            PNG files of the same name. If two would be the same file, the later ones get a number.

    Attributes:
        targets: Paths of the copies, in the order of ``images``.
        failures: Pictures that could not be written, with the reasons.

    Raises:
        ValueError: If a copy would replace one of the images, or a file beside them.
        PermissionError: If ``folder`` can't be written.
    """

    def __init__(self, folder: str | Path, images: Iterable[tuple[Path, Path]]):
        require_writable(Path(folder, 'picture.png'))
        self.targets: list[Path] = []
        self.failures: dict[Path, str] = {}
        self._has_warned = False
        resolve_folder = functools.cache(lambda path: Path(os.path.realpath(path)))
        sources = set()
        taken = set()
        for image, relative in images:
            target, number = Path(folder, relative).with_suffix('.png'), 2
            while target in taken:
                target, number = Path(folder, relative).with_name(f'{relative.stem}_{number}.png'), number + 1
            taken.add(target)
            sources.add(_resolve(image, resolve_folder))
            self.targets.append(target)
        folders = {source.parent for source in sources}
        for target in self.targets:
            resolved = _resolve(target, resolve_folder)
            if resolved in sources:
                raise ValueError(f'{target} is one of the images and would be replaced; name another folder')
            if resolved.parent in folders and target.exists():
                raise ValueError(f'{target} lies beside the images and would be replaced; name another folder')
        with warnings.catch_warnings():
            # it needs no folder of its own: each picture gets its own path
            warnings.filterwarnings('ignore', 'Visualizer backend is not initialized')
            self._visualizer = UniversalVisualizer()

    def write(self, number: int, prediction: Prediction) -> None:
        """Write the picture of the ``number``-th image, if that could be read. A failure is noted and not raised."""
        if prediction.error:
            return
        try:
            self._draw(prediction, self.targets[number])
        except Exception as error:  # of any type: the visualizer is matplotlib's
            reason = str(error) if type(error) is IsADirectoryError else explain_failure(error)
            self.failures[self.targets[number]] = reason

    def _draw(self, prediction: Prediction, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError('there is a folder of this name')
        labels = [ranked.label for ranked in prediction.classes]
        scores = torch.zeros(max(labels) + 1)
        scores[labels] = torch.tensor([ranked.score for ranked in prediction.classes])
        sample = DataSample().set_pred_label(torch.tensor(labels)).set_pred_score(scores)
        # Of ImageNet's long lists of synonyms the first one is shown. A name that is an index is shown already.
        names = {c.label: c.name.split(',')[0] for c in prediction.classes if c.name != str(c.label)}
        # it has been read before, so its size is allowed
        read = LoadImageFromFile(max_pixels=sys.maxsize)
        fonts = self._find_fonts(''.join(names.values()))
        image = read(dict(img_path=str(prediction.image)))['img'][:, :, ::-1]  # RGB
        short, long = sorted(image.shape[:2])
        with warnings.catch_warnings():
            if self._has_warned:
                warnings.filterwarnings('ignore', 'Glyph .* missing from')
            self._visualizer.visualize_cls(
                image,
                sample,
                classes=[names.get(label, '-') for label in range(len(scores))] if names else None,
                resize=max(1, min(SHORT_EDGE, LONG_EDGE * short // long)),
                text_cfg=dict(bbox=dict(facecolor='black', alpha=0.7, boxstyle='Round'), family=list(fonts)),
                out_file=str(target),
            )

    def _find_fonts(self, text: str) -> tuple[str, ...]:
        fonts, missing = find_fonts(text)
        if missing and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f'no font of this machine has the characters {missing[:20]} of the names of classes, and the pictures '
                'have boxes in their place; install one that has them',
                stacklevel=2,
            )
        return fonts


def _resolve(path: Path, folders: Callable[[Path], Path]) -> Path:
    """The file behind a path. `Path.resolve` looks at each folder for each file, and refuses a link to itself."""
    return Path(os.path.realpath(path)) if path.is_symlink() else folders(path.parent) / path.name
