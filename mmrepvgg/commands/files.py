"""Checks of files that need no slow import, so that a wrong name is told at once."""

from pathlib import Path


def require_file(path: str | Path) -> None:
    """Refuse what is no file.

    Raises:
        FileNotFoundError: If it is missing, or something else.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist' if not Path(path).exists() else f'{path} is not a file')


def require_path(path: str | Path | None) -> None:
    """Refuse a file or folder that is missing. None is no path.

    Raises:
        FileNotFoundError: If it is missing.
    """
    if path is not None and not Path(path).exists():
        raise FileNotFoundError(f'{path} does not exist')


def require_source(source: str | Path, destination: Path) -> None:
    """Refuse a source that is missing, or that the destination would overwrite.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If both are the same file.
    """
    require_file(source)
    if destination.exists() and destination.samefile(source):
        raise ValueError(f'`destination` must be another file than `source`, got {source} for both')
