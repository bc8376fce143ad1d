"""Configs by path or by name. Importing this imports no torch, so that the command line is fast."""

import argparse
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mmengine.config import Config

# Where this project's model-index file is, below the folder that holds configs/.
METAFILE = 'configs/repvgg/metafile.yml'


def find_root() -> Path:
    """The folder that holds ``configs/``: ``.mim`` of an installed package, or the checkout of an editable one.

    Raises:
        FileNotFoundError: If there is neither.
    """
    package = Path(__file__).parent.parent
    for root in (package / '.mim', package.parent):
        if (root / METAFILE).is_file():
            return root
    raise FileNotFoundError(
        f'{METAFILE} is neither in {package / ".mim"} nor in {package.parent}; install the package with pip, or use a '
        'checkout of the repository'
    )


def list_configs() -> Mapping[str, Path]:
    """The configs that come with this package: their names, for example ``'repvgg-a0_8xb32'``, and their files."""
    return {path.stem: path for path in sorted(find_root().glob('configs/repvgg/**/*.py'))}


def find_config(config: str | Path) -> Path:
    """The file of a config.

    Args:
        config: A path. If there is no such file: the name of a config that comes with this package, also with its
            folder (``'deploy/repvgg-a0_deploy'``).

    Raises:
        FileNotFoundError: If there is neither; names configs with similar names.
    """
    path = Path(config)
    if path.is_file():
        return path
    shipped = list_configs()
    found = shipped.get(path.name)
    if found is not None and found.with_suffix('').parts[-len(path.parts) :] == path.parts:
        return found
    if path.exists():
        raise FileNotFoundError(f'{config} is not a file')
    names = difflib.get_close_matches(path.name.removesuffix('.py').lower(), shipped)
    if not names and not path.suffix:
        names = list(shipped)
    hint = f'; configs that come with mmrepvgg: {", ".join(names)}' if names else ''
    raise FileNotFoundError(f'{config} does not exist{hint}')


def load_config(config: str | Path, options: Iterable[str] = ()) -> 'Config':
    """Read a config and change some of its settings.

    Args:
        config: Its file, or the name of one that comes with this package, as ``'repvgg-a0_8xb32'``.
        options: Settings as ``'train_cfg.max_epochs=10'``, in mmengine's syntax. The last one of a setting counts.

    Raises:
        FileNotFoundError: If there is no such file and no such name.
        ValueError: If the file is no config, or an option does not fit it.
        ImportError: If mmcv is not installed.
    """
    path = find_config(config)
    from .. import mmcv_installed  # noqa: F401

    # isort: split
    from mmengine.config import Config, DictAction

    values = argparse.Namespace()
    try:
        cfg = Config.fromfile(path)
        DictAction([], 'options')(argparse.ArgumentParser(), values, list(options))
        cfg.merge_from_dict(values.options)
    except Exception as error:
        raise ValueError(f'{path} is no usable config: {type(error).__name__}: {error}') from error
    return cfg
