"""The toolchains of the study, and the Python that runs each of them. Imports no torch."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FIND_VERSIONS = """
import importlib.metadata, json, sys
print(json.dumps({name: importlib.metadata.version(name) for name in sys.argv[1:]}))
"""


@dataclass(frozen=True)
class Toolchain:
    """A toolchain.

    Attributes:
        name: Name of its adapter in ``studies/toolchains/adapters/``, and of its environment.
        title: Title in the table.
        suffix: Ending of the float files that its adapter reads.
        packages: Names of the packages whose versions the report shows.
        has_environment: Whether it needs an environment of its own. The others are run by this Python.
    """

    name: str
    title: str
    suffix: str
    packages: tuple[str, ...]
    has_environment: bool = True


TOOLCHAINS = {
    row.name: row
    for row in (
        Toolchain('onnxruntime', 'ONNX Runtime', '.onnx', ('onnxruntime', 'onnx'), has_environment=False),
        Toolchain('nncf', 'NNCF, OpenVINO', '.onnx', ('nncf', 'openvino'), has_environment=False),
        Toolchain('executorch', 'ExecuTorch, XNNPACK', '.pt2', ('executorch', 'torchao', 'torch')),
        Toolchain('litert', 'LiteRT', '.pt2', ('litert-torch', 'ai-edge-quantizer', 'ai-edge-litert')),
        Toolchain('rknn', 'Rockchip RKNN, simulator', '.onnx', ('rknn-toolkit2',)),
    )
}


@dataclass(frozen=True)
class Environment:
    """The environment of a toolchain.

    Attributes:
        toolchain: The toolchain.
        python: Its Python.
        versions: Versions of its packages.
    """

    toolchain: Toolchain
    python: Path
    versions: Mapping[str, str]


def find_environment(toolchain: Toolchain, root: Path) -> Environment:
    """Find the environment of a toolchain.

    Args:
        toolchain: The toolchain.
        root: Folder of the environments.

    Raises:
        FileNotFoundError: If it does not exist, or lacks a package.
    """
    python = root / toolchain.name / 'bin/python' if toolchain.has_environment else Path(sys.executable)
    if not python.exists():
        raise FileNotFoundError(f'{python} does not exist')
    command: list[str | Path] = [python, '-c', _FIND_VERSIONS, *toolchain.packages]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise FileNotFoundError(f'{python} lacks a package: {done.stderr.strip().splitlines()[-1]}')
    return Environment(toolchain, python, json.loads(done.stdout))
