"""Find and read configs by their paths or their names. Imports no torch, so that the command line is fast."""

import argparse
import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmengine.config import Config

# This project's model-index file, relative to the folder that holds configs/.
METAFILE = 'configs/repvgg/metafile.yml'

_PACKAGE = 'mmrepvgg'


def find_root() -> Path:
    """The folder that holds ``configs/``: ``.mim`` of an installed package, or the checkout of an editable one.

    Raises:
        FileNotFoundError: If neither has the configs.
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
    """Find the file of a config.

    Args:
        config: A path, or the name of a config that comes with this package. The name may have its folder, as in
            ``'deploy/repvgg-a0_deploy'``. An existing file comes first.

    Raises:
        FileNotFoundError: If there is no such file and no such name. The message lists similar names.
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


def base_configs(*names: str) -> list[str]:
    """The files of configs that come with this package, and of their parts, for ``_base_`` of a config elsewhere.

    It serves every program that reads the config, wherever this package is installed. ``_base_`` takes an expression,
    in which nothing can be imported by a statement::

        _base_ = __import__('mmrepvgg').base_configs('repvgg-a0_8xb32')

    Args:
        *names: Names of configs, or of files in ``configs/_base_/``, for example ``'models/repvgg-a0'``.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    folder = find_root() / 'configs/_base_'
    parts = {path.relative_to(folder).with_suffix('').as_posix(): path for path in sorted(folder.rglob('*.py'))}
    known = {**list_configs(), **parts}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known) or parts
            raise FileNotFoundError(f'there is no config {name!r} to be a base; there are {", ".join(near)}')
    return [str(known[name]) for name in names]


def load_config(config: str | Path, options: Iterable[str] = ()) -> 'Config':
    """Read a config and change some of its settings.

    The file may have a base of this package, see :func:`base_configs`. Where a wheel is installed, mmengine's own way
    does, too: ``_base_ = 'mmrepvgg::repvgg/repvgg-a0_8xb32.py'``.

    Args:
        config: A path, or the name of a config that comes with this package, for example ``'repvgg-a0_8xb32'``.
        options: Settings in mmengine's syntax, for example ``'train_cfg.max_epochs=10'``. If two name the same setting,
            the last one counts.

    Raises:
        FileNotFoundError: If there is no such file and no such name.
        ValueError: If the file is no config, or an option does not fit it.
        ImportError: If mmcv is not installed.
    """
    path = find_config(config)
    from .. import mmcv_installed  # noqa: F401

    # isort: split
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE

    MODULE2PACKAGE.setdefault(_PACKAGE, _PACKAGE)  # mmengine serves bases of a list of packages alone

    try:
        cfg = Config.fromfile(path)
        _drop_scope(cfg._cfg_dict)
    except Exception as error:
        hint = ''
        if isinstance(error, FileNotFoundError) and f'{_PACKAGE}/.mim' in str(error):
            name = "__import__('mmrepvgg').base_configs('NAME')"
            hint = f'; a base of the form mmrepvgg:: needs an installed wheel, and _base_ = {name} does not'
        raise ValueError(f'{path} is no usable config: {type(error).__name__}: {error}{hint}') from error
    change_settings(cfg, options, path)
    return cfg


def change_settings(cfg: 'Config', options: Iterable[str], name: str | Path) -> None:
    """Change some settings of a config, in mmengine's syntax.

    Raises:
        ValueError: If one does not fit the config, whose name the message has.
    """
    from mmengine.config import DictAction

    values = argparse.Namespace()
    try:
        DictAction([], 'options')(argparse.ArgumentParser(), values, list(options))
        cfg.merge_from_dict(values.options)
    except Exception as error:
        raise ValueError(f'{name} is no usable config: {type(error).__name__}: {error}') from error


def _drop_scope(value: Any) -> None:
    """Drop the scope that mmengine gives to every part of a base of this package.

    These configs name the scope where they need it, and mmengine itself passes the scope on to functions that do not
    take it (``collate_fn``).
    """
    if isinstance(value, dict):
        if value.get('_scope_') == _PACKAGE:
            del value['_scope_']
        value = list(value.values())
    if isinstance(value, list | tuple):
        for each in value:
            _drop_scope(each)
