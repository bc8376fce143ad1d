"""Loading of exported files, by their endings."""

from pathlib import Path

from .exported_model import ExportedModel
from .table import find_format


def load_exported(path: str | Path, *, num_threads: int | None = None) -> ExportedModel:
    """Load a file that :func:`mmrepvgg.export_model` or :func:`mmrepvgg.quantize_model` wrote.

    Files of torch.export and TorchScript are programs. Load only files that you trust.

    Args:
        path: The file.
        num_threads: Number of CPU threads. Default: that of the runtime; for ncnn and LiteRT that of PyTorch. For files
            that PyTorch or ExecuTorch runs this sets the threads of the whole process.

    Raises:
        ValueError: If the ending is unknown, or the file holds no metadata.
        FileNotFoundError: If there is no such file.
        NoRuntimeError: If the runtime does not run on this machine. Core ML runs on macOS only.
        MissingPackageError: If the runtime is not installed. The message names the extra that installs it.
        CheckpointError: If the file is damaged.
    """
    path = Path(path)
    row = find_format(path)
    row.require_present(path)
    row.require_runtime()
    if num_threads is not None and num_threads < 1:
        raise ValueError(f'`num_threads` must be at least 1, got {num_threads}')
    return row.load(path, num_threads)
