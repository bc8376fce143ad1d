"""What is wrong with an environment, and what to do about it: one function a kind of fault."""

import platform
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .distributions import PROJECT, Need, find_python_versions, find_version, is_within
from .trials import Trial

MMCV_BUILDS = ('mmcv', 'mmcv-lite', 'mmcv-full', 'onedl-mmcv')
OPENCV_BUILDS = (
    *('opencv-python', 'opencv-python-headless', 'opencv-contrib-python', 'opencv-contrib-python-headless'),
)
# Largest difference of the two forms of a small network, in float32.
TOLERANCE = 1e-4

# Why a limit is there, by the package.
_REASONS = {
    'setuptools': 'mmengine imports pkg_resources, which setuptools 82 no longer has',
    'torch': 'torch up to 2.10 reads files of torch.export by unpickling them',
    'executorch': 'each version of ExecuTorch fits one version of torch',
}

# An import that is missing, and those that other checks look for.
_MISSING = re.compile(r"No module named '(\w+)|mmrepvgg needs (?=mmcv)(\w+)")
_CHECKED = ('matplotlib', 'mmcv', 'mmengine', 'mmpretrain', 'numpy', 'rich', 'torch', 'torchvision')
_PACKAGES = {'cv2': 'opencv-python', 'pkg_resources': 'setuptools<82', 'yaml': 'pyyaml', 'PIL': 'pillow'}

# What to do, by the message of an import that failed, the surest first.
_REMEDIES = {
    r'libGL|libgthread|libglib|libSM|libXext': 'install the libraries that OpenCV needs (Debian and Ubuntu: apt-get '
    'install libgl1 libglib2.0-0), or replace opencv-python by opencv-python-headless',
    r'torchvision::|torchvision.*undefined symbol': 'torch and torchvision must be a pair: pip install -U torch '
    'torchvision, both from the same index',
    r'_ARRAY_API|using NumPy 1|multiarray|numpy\.dtype size|Numpy is not available': 'one of numpy and the package is '
    'too old for the other: pip install -U the package that is named, or pip install "numpy<2" for an old one',
    r'MMCV==|MMEngine==': 'pip install "mmengine>=0.10.6,<1" "mmcv-lite>=2.1,<2.3"',
    r'mmcv\._ext|_ext\.': 'this mmcv was built for another torch: build it again, or take mmcv-lite, which has no '
    'compiled operators',
    r'lib(?:cudart|cublas|cudnn|nccl|nvrtc)\S*: cannot open': 'the CUDA libraries of torch are incomplete: pip install '
    '--force-reinstall torch torchvision',
    r'GLIBC(?:XX)?_': 'this system is older than the package: take an older version of the package or a newer system',
    r'SIGILL': 'this build has instructions that the CPU lacks: take another version of the package',
    r'SIGKILL': 'the system ended it, as a rule for lack of memory',
}


@dataclass(frozen=True)
class Problem:
    """Something that is wrong.

    Attributes:
        what: What is wrong.
        remedy: What to do.
    """

    what: str
    remedy: str


def check_python() -> Iterator[Problem]:
    versions, number = find_python_versions(), platform.python_version()
    if not is_within(number, versions):
        yield Problem(f'Python {number} is outside {versions}', 'make an environment with another Python')


def check_needs(needs: Sequence[Need]) -> Iterator[Problem]:
    """Packages that are missing, and versions outside the ranges of setup.py, of what is installed."""
    if not needs:
        yield Problem(f'pip has not installed {PROJECT}, so what it needs is not known', 'pip install . in the clone')
    missing = [need for need in needs if not need.extra and not need.version]
    if missing:
        names = ' '.join(f'"{need}"' for need in missing)
        yield Problem(f'{", ".join(need.name for need in missing)} not installed', f'pip install {names}')
    wrong = {need.name: need for need in needs if need.version and not need.fits}
    for need in wrong.values():
        reason = f' ({_REASONS[need.name]})' if need.name in _REASONS else ''
        of = f', which the extra {need.extra} asks for' if need.extra else ''
        yield Problem(f'{need.name} {need.version} is outside {need.versions}{of}{reason}', f'pip install "{need}"')


def check_mmcv() -> Iterator[Problem]:
    if not any(find_version(name) for name in MMCV_BUILDS):
        yield Problem('mmcv is not installed', 'pip install "mmcv-lite>=2.1,<2.3"')
    for builds in (MMCV_BUILDS, ('mmengine', 'onedl-mmengine'), ('mmpretrain', 'onedl-mmpretrain')):
        found = [name for name in builds if find_version(name)]
        if len(found) > 1:
            yield Problem(
                f'{" and ".join(found)} are installed: builds of one package, which overwrite each other',
                f'pip uninstall -y {" ".join(found)}, then pip install the one you want'
                + (' (mmcv-lite is enough to classify)' if builds is MMCV_BUILDS else ''),
            )


def check_opencv() -> Iterator[Problem]:
    found = {name: find_version(name) for name in OPENCV_BUILDS if find_version(name)}
    if len(set(found.values())) > 1:
        listed = ' and '.join(f'{name} {version}' for name, version in found.items())
        yield Problem(
            f'{listed} are installed: builds of one package, which overwrite each other',
            f'pip uninstall -y {" ".join(found)}, then pip install the one you want',
        )


def check_trials(trials: Sequence[Trial]) -> Iterator[Problem]:
    """Imports that failed. What imports a broken package fails with it, and is not named again."""
    named: set[str] = set()
    for trial in trials:
        missing = _MISSING.search(trial.error)
        cause = (missing[1] or missing[2]) if missing else trial.error
        if not cause or cause in named or (missing and cause in _CHECKED):
            continue
        named.add(cause)
        if missing:
            package = _PACKAGES.get(cause, cause)
            yield Problem(f'{trial.name} needs {cause}, which is not installed', f'pip install "{package}"')
        else:
            yield Problem(f'{trial.name} can not be used: {trial.error}', _find_remedy(trial))


def check_torch(found: dict, *, has_nvidia_gpu: bool) -> Iterator[Problem]:
    if found.get('numpy'):
        yield Problem(f'torch and numpy do not work together: {found["numpy"]}', 'pip install -U torch numpy')
    if not has_nvidia_gpu:
        return
    if found.get('gpu_error'):
        yield Problem(
            f'torch can not use the GPU: {found["gpu_error"]}',
            'the build of torch must fit the driver and the GPU: update the driver, or install a torch for its CUDA',
        )
    elif found.get('cuda') and not found.get('gpus'):
        yield Problem(
            'torch sees no GPU, though the system has one',
            'look at CUDA_VISIBLE_DEVICES, at nvidia-smi, and whether a container was started with its GPUs',
        )


def check_switch(found: dict) -> Iterator[Problem]:
    """Whether the two forms of a small network agree on this machine."""
    difference = found.get('difference', 0.0)
    if not difference <= TOLERANCE:  # true for NaN too
        yield Problem(
            f'the two forms of a small network differ by {difference:.1e} of the largest output',
            'torch computes wrongly on this machine: try another version of it, and report this',
        )


def _find_remedy(trial: Trial) -> str:
    for pattern, remedy in _REMEDIES.items():
        if re.search(pattern, trial.error):
            return remedy
    return f'pip install --force-reinstall --no-deps {trial.name.replace("_", "-")}'
