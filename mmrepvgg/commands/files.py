"""Checks of files without slow imports, so that errors in names come at once."""

from pathlib import Path

from ..runtimes.table import find_format, is_exported


def require_file(path: str | Path | None) -> None:
    """Check that a file exists. None stands for weights that are downloaded.

    Raises:
        FileNotFoundError: If it is missing, or is not a file.
    """
    if path is not None and not Path(path).is_file():
        raise FileNotFoundError(f'{path} does not exist' if not Path(path).exists() else f'{path} is not a file')


def require_weights(path: str | Path | None) -> None:
    """Check that a checkpoint exists, or that an exported file exists and can be run here.

    None stands for weights that are downloaded.

    Raises:
        FileNotFoundError: If it is missing, or is no file of its format.
        NoRuntimeError: If the runtime of an exported file does not run on this machine.
        MissingPackageError: If it is not installed.
    """
    if path is None or not is_exported(path):
        require_file(path)
        return
    row = find_format(path)
    row.require_present(Path(path))
    row.require_runtime()


def require_path(path: str | Path | None) -> None:
    """Check that a file or folder exists, if ``path`` is not None.

    Raises:
        FileNotFoundError: If it is missing.
    """
    if path is not None and not Path(path).exists():
        raise FileNotFoundError(f'{path} does not exist')


def require_source(source: str | Path | None, destination: Path) -> None:
    """Check that a source exists, and that the destination does not overwrite it.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If both are the same file.
    """
    require_file(source)
    if source is not None and destination.exists() and destination.samefile(source):
        raise ValueError(f'`destination` must be another file than `source`, got {source} for both')
