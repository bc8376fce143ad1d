"""What a work dir holds of a training: its config and its checkpoint."""

from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..checkpoints.reading import Checkpoint, read_checkpoint
from ..data.classes import require_single_label
from ..data.layout import check_data, get_num_classes
from ..engine.latest import find_latest
from ..models.config_types import get_type_name
from ..zoo.configs import load_config


class UnfitModelError(ValueError):
    """A model about which there is no report: it is no classifier with one label an image, or has no RepVGG block."""


@dataclass(frozen=True)
class Source:
    """What a report is about.

    Attributes:
        cfg: The config of the training. Its test data are the validation data, if it has these.
        path: File of the config.
        num_classes: Number of classes.
        checkpoint: The checkpoint.
        has_images: Whether the config has validation or test data.
    """

    cfg: Config
    path: Path
    num_classes: int
    checkpoint: Checkpoint
    has_images: bool


def find_source(work_dir: str | Path, checkpoint: str | Path | None = None) -> Source:
    """Find the config and the checkpoint of a training.

    Args:
        work_dir: The folder into which `train` wrote.
        checkpoint: Checkpoint to take. Default: the latest whole one.

    Raises:
        FileNotFoundError: If the folder holds no config or no checkpoint.
        CheckpointError: If the checkpoint can't be read.
        DataError: If the validation images are not where the config says.
        UnfitModelError: If the model is no classifier, or one that gives an image several labels.
    """
    folder = Path(work_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f'{work_dir} is not a folder; give the work dir of a training')
    # the Runner writes the config of each training, under the name of its file
    paths = sorted(folder.glob('*.py'), key=lambda path: path.stat().st_mtime_ns)
    if not paths:
        raise FileNotFoundError(f'{work_dir} holds no config (.py); give the work dir of a training by `train`')
    cfg = load_config(paths[-1])
    num_classes = _count_classes(cfg, paths[-1])
    found = find_latest(folder).checkpoint if checkpoint is None else read_checkpoint(checkpoint)
    if found is None:
        raise FileNotFoundError(f'{work_dir} holds no checkpoint (epoch_N.pth, iter_N.pth); name one by `checkpoint`')
    if cfg.get('val_dataloader') is not None:
        cfg.test_dataloader = cfg.val_dataloader
    has_images = cfg.get('test_dataloader') is not None
    if has_images:
        check_data(cfg, ['test_dataloader'])
    return Source(cfg, paths[-1], num_classes, found, has_images)


def _count_classes(cfg: Config, path: Path) -> int:
    num_classes = get_num_classes(cfg)
    try:
        require_single_label(cfg)
    except ValueError:
        num_classes = None
    if num_classes is None:
        model = cfg.get('model') or {}
        names = [get_type_name(part.get('type')) for part in (model, model.get('head')) if part]
        raise UnfitModelError(
            f'a report is about a classifier that gives an image one label, got {" with ".join(names)} ({path})'
        )
    return num_classes
