"""A folder for any web server, whose page runs an ONNX file in the browser of whoever opens it."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from mmengine.config import Config

from ..checkpoints.writing import replacing, require_writable
from ..data.plain_pipelines import Pipeline, describe_pipeline
from ..data.wrappers import get_test_pipeline
from ..progress import working
from ..runtimes.loading import load_exported
from ..runtimes.metadata import ExportMetadata
from ..runtimes.onnx import ONNX
from .configs import require_pipeline
from .steps import StepError, list_steps

_WEB = Path(__file__).parent / 'web'
_PAGE = ('index.html', 'style.css', 'page.mjs', 'classify.mjs', 'steps.mjs')
_LOCK = ('package.json', 'package-lock.json')
# What of onnxruntime-web a page needs to run on the CPU.
_RUNTIME = ('ort.wasm.min.mjs', 'ort-wasm-simd-threaded.mjs', 'ort-wasm-simd-threaded.wasm')
_LICENCE = 'onnxruntime-web-LICENSE.txt'
_MARKER = 'model.json'
# What the script reads of a file's description.
_ENTRIES = (
    'classes', 'num_classes', 'input_size', 'dynamic_size', 'batch_size', 'mean', 'std', 'to_rgb', 'with_preprocess',
    'softmax',
)  # fmt: skip


class NpmError(RuntimeError):
    """onnxruntime-web can't be fetched. The message says what to do."""


@dataclass(frozen=True)
class StaticPage:
    """A folder that was written.

    Attributes:
        folder: The folder.
        num_files: Number of files in it.
        size: Bytes of all of them.
    """

    folder: Path
    num_files: int
    size: int


def write_static_page(file: str | Path, folder: str | Path, *, config: Config | None = None) -> StaticPage:
    """Write a page that runs an ONNX file in the browser, with all that it needs, for any web server.

    ONNX Runtime Web comes from npm, in the version and with the hashes of the lock file in this package.

    Args:
        file: ONNX file of ``export_model`` or ``quantize_model``.
        folder: Folder to write. An earlier page there is replaced.
        config: Config whose test pipeline reads the images. Default: what the file carries.

    Raises:
        ValueError: If it is no ONNX file, or takes images of other than three channels.
        StepError: If the test pipeline has a step that the page can not do.
        NoConfigError: If the file does not carry its pipeline, and no config is given.
        NpmError: If npm is not installed, or fails.
        FileExistsError, PermissionError: If the folder is another one, or can't be written.
    """
    file, folder = Path(file), Path(folder)
    if file.suffix.lower() not in ONNX.suffixes:
        raise ValueError(f'the page runs {ONNX.name} files ({", ".join(ONNX.suffixes)}), got {file}')
    require_writable(folder, marker=_MARKER)
    if shutil.which('npm') is None:
        raise NpmError('the page needs onnxruntime-web, which npm fetches; install Node.js, which brings npm')
    metadata = load_exported(file).metadata
    pipeline = require_pipeline(metadata, file) if config is None else describe_pipeline(get_test_pipeline(config))
    description = _describe(file, metadata, pipeline)
    with replacing(folder, _MARKER) as temporary:
        temporary.mkdir()
        for name in _PAGE:
            shutil.copy(_WEB / name, temporary)
        _add_runtime(temporary / 'onnxruntime-web')
        shutil.copyfile(file, temporary / 'model.onnx')
        (temporary / _MARKER).write_text(json.dumps(description))
        written = [path.stat().st_size for path in temporary.rglob('*') if path.is_file()]
    return StaticPage(folder, len(written), sum(written))


def _describe(file: Path, metadata: ExportMetadata, pipeline: Pipeline) -> dict[str, object]:
    if metadata.channels != 3:
        raise ValueError(f'the page shows networks images of three channels, and {file} takes {metadata.channels}')
    if not pipeline:
        raise StepError('the test pipeline of the config has steps of its own, which no page can do')
    return dict(name=file.name, **list_steps(pipeline), **{name: getattr(metadata, name) for name in _ENTRIES})


def _add_runtime(target: Path) -> None:
    target.mkdir()
    with tempfile.TemporaryDirectory(prefix='mmrepvgg-npm-') as folder:
        for name in _LOCK:
            shutil.copy(_WEB / name, folder)
        # the lock file has the hash of each package, and no program of a package is run
        command = ['npm', 'ci', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund', '--loglevel=error']
        with working('fetching onnxruntime-web'):
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if line.strip()] or ['no reason given']
            raise NpmError(f'npm could not fetch onnxruntime-web: {lines[0]} (it needs the network, or its own cache)')
        for name in _RUNTIME:
            shutil.copy(Path(folder, 'node_modules/onnxruntime-web/dist', name), target)
    shutil.copy(_WEB / _LICENCE, target / 'LICENSE.txt')
