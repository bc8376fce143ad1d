"""Package definition. `make` installs the tested versions, pinned in constraints.txt; the ranges here are wider."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
VERSION = re.search(r"__version__ = '(.+)'", (ROOT / 'mmrepvgg/__init__.py').read_text()).group(1)


# Scripts that are for a checkout of the repository only.
REPOSITORY_TOOLS = (
    'any_model.py',
    'epoch_time.py',
    'exactness.py',
    'prepare_shapes.py',
    'quantization_study.py',
    'scaling.py',
    'soak.py',
    'toolchain_study.py',
    'update_model_table.py',
)

# What each format of files needs, to write it and to run it.
# onnxscript: older ones leave a Shape operator, which has no form in opset 13
ONNX = ['onnx>=1.19', 'onnxscript>=0.7.2', 'onnxruntime>=1.23']
OPENVINO = ['openvino>=2026.4']
NCNN = ['ncnn>=1.0.20261020', 'pnnx>=20261020']
LITERT = ['ai-edge-litert>=2.3']
LITERT_WRITERS = ['litert-torch>=0.10', 'ai-edge-quantizer>=0.10']
# litert-converter, which litert-torch needs, is for these only.
HAS_LITERT_WRITERS = (
    '(sys_platform == "linux" and platform_machine == "x86_64") or '
    '(sys_platform == "darwin" and platform_machine == "arm64")'
)
COREML = ['coremltools>=9.0']
# Each version of ExecuTorch is compiled against one version of torch (runtimes/executorch_core.py).
EXECUTORCH = ['executorch>=1.3,<1.4', 'torch>=2.12,<2.13', 'torchao>=0.17']
# int8 for OpenVINO; ONNX Runtime brings its own quantizer. Older ones change torch so that nothing can be compiled.
NNCF = ['nncf>=3.4']

SAFETENSORS = ['safetensors>=0.4']
TENSORBOARD = ['tensorboard>=2.17']
# writes tar shards; reading them needs nothing
SHARDS = ['webdataset>=1.0']
# models of timm by name
TIMM = ['timm>=1.0']
# predictions on many machines; 2.64 will have no argument for restarts (prediction/many.py)
RAY = ['ray[data]>=2.40,<2.64', 'pyarrow>=17']
DIGITS = ['scikit-learn>=1.3']
# the local page of `mmrepvgg demo`
DEMO = ['streamlit>=1.50']
DOCS = ['sphinx>=8.1', 'myst-parser>=4', 'furo>=2024.8', 'sphinx-copybutton>=0.5', 'sphinx-intl>=2.3']

# The tests of all that runs with every version of torch.
TEST = [
    *(SAFETENSORS + TENSORBOARD + SHARDS + RAY + DIGITS + DEMO + TIMM),
    *(ONNX + OPENVINO + NCNN + LITERT + COREML + NNCF),
    *(f'{package}; {HAS_LITERT_WRITERS}' for package in LITERT_WRITERS),
    *('pytest>=8', 'pytest-xdist>=3.5', 'hypothesis>=6.100', 'filelock>=3.12'),
    # a headless browser for pages; mim, which is to find the wheel
    *('playwright>=1.50', 'openmim>=0.3.9'),
    # a network whose blocks are other people's (tests/test_any_model.py)
    'segmentation-models-pytorch>=0.5',
]


class BuildWithConfigs(build_py):
    """Copies configs/ and tools/ into the package, as .mim/, where OpenMMLab's tools and mmrepvgg.zoo look for them."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            destination = Path(self.build_lib, 'mmrepvgg/.mim')
            ignore = shutil.ignore_patterns('__pycache__', *REPOSITORY_TOOLS)
            for folder in ('configs', 'tools'):
                shutil.copytree(ROOT / folder, destination / folder, dirs_exist_ok=True, ignore=ignore)
            shutil.copy(ROOT / 'model-index.yml', destination)


setup(
    cmdclass={'build_py': BuildWithConfigs},
    name='mmrepvgg',
    version=VERSION,
    description='RepVGG for OpenMMLab: train with branches, ship a plain stack of 3x3 convolutions',
    long_description=(ROOT / 'README.md').read_text(),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    keywords=['RepVGG', 're-parameterization', 'OpenMMLab', 'mmpretrain', 'image classification', 'ONNX', 'int8'],
    classifiers=[
        'Development Status :: 4 - Beta',
        'Intended Audience :: Developers',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX :: Linux',
        *(f'Programming Language :: Python :: 3.{minor}' for minor in range(10, 14)),
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Topic :: Scientific/Engineering :: Image Recognition',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['mmrepvgg', 'mmrepvgg.*']),
    package_data={'mmrepvgg': ['py.typed', 'report/templates/*', 'demo/*.html', 'demo/*.css', 'demo/web/*']},
    entry_points={'console_scripts': ['mmrepvgg=mmrepvgg.commands.main:main']},
    # mmcv and mmengine import pkgutil.find_loader, which Python 3.14 no longer has.
    python_requires='>=3.10,<3.14',
    install_requires=[
        # up to 2.8, files of torch.export have pickles in them, and the packages for LiteRT ask for more
        'torch>=2.11',
        'torchvision>=0.26',
        # 0.10.6: imports beside torch >= 2.5 and transformers
        'mmengine>=0.10.6,<1',
        'mmpretrain>=1.2,<2',
        'numpy>=1.26',
        # 11.3: AVIF
        'pillow>=11.3',
        'rich>=13',
        # reports
        'jinja2>=3.1',
        'matplotlib>=3.8',
        # mmengine imports pkg_resources, gone in 82
        'setuptools>=65,<82',
    ],
    # No mmcv in install_requires: mmcv and mmcv-lite are two builds of one import package, and installing one
    # over the other destroys it. Who has neither takes the extra.
    extras_require={
        'mmcv-lite': ['mmcv-lite>=2.1,<2.3'],
        'digits': [*DIGITS, 'opencv-python>=4.11'],
        'safetensors': SAFETENSORS,
        'tensorboard': TENSORBOARD,
        'shards': SHARDS,
        'ray': RAY,
        'timm': TIMM,
        'demo': DEMO,
        'docs': DOCS,
        'onnx': ONNX,
        'openvino': OPENVINO,
        'ncnn': NCNN,
        # runs files; what writes them is far larger
        'litert': LITERT,
        'litert-export': LITERT + LITERT_WRITERS,
        'coreml': COREML,
        'executorch': EXECUTORCH,
        'quantization': [*ONNX, *OPENVINO, *NNCF, 'scipy>=1.10'],
        'test': TEST,
        'dev': [*TEST, *DOCS, *EXECUTORCH, 'ruff', 'mypy', 'pre-commit', 'pip-licenses'],
    },
)
