# make demo   train, convert and test RepVGG-A0 on real images, in .venv
# make quantization-study  train models in different ways and show what int8 does to them (hours), there
# make toolchains  make the environments of other quantizers for tools/toolchain_study.py (17 GB), in .venv-toolchains
# make test   run the tests there
# make browser  find a Chromium for the tests of pages, or install one (Debian, Ubuntu: as root)
# make test-deep   run the long tests: thousands of random networks, mutated files and killed processes (hours), there
# make soak   test and predict again and again for an hour in one process, and see whether its memory grows
# make test-onedl  run the tests, and those of segmentation and detection, with the onedl forks of the stack, in .venv-onedl
# make test-matrix  run the tests with Python 3.10 to 3.13 and the oldest and newest packages that setup.py allows, in .tox
# make docs   build the site of docs/ in English and Chinese, into docs/_build
# make translations  after a change of English pages: update the files in docs/locale, in which the Chinese stands
# make audit  check that the versions of the packages in .venv fit together, and their licences
# make lint   check format, style and types there
PYTHON ?= python3
BIN := .venv/bin
MMREPVGG := $(BIN)/python -m mmrepvgg
WORK := work_dirs/repvgg-a0_digits
CONFIG := repvgg-a0_digits
DEPLOY_CONFIG := repvgg-a0_digits_deploy
# One process a core, each file's tests in one of them. With more threads than cores they would wait for each other.
PARALLEL ?= -n auto --maxprocesses 4 --dist loadfile

# A warning is an error, and so is a name in the reference that leads nowhere.
SPHINX := -c docs -W --keep-going -n -q

# Each has its own versions of torch, numpy and protobuf.
TOOLCHAINS := executorch litert rknn

.PHONY: demo quantization-study toolchains test browser test-deep soak test-onedl test-matrix docs translations audit \
	lint format install clean

demo: install
	$(MMREPVGG) prepare-digits data/digits
	$(MMREPVGG) train $(CONFIG) --work-dir $(WORK) --no-report
	$(MMREPVGG) reparameterize $(CONFIG) $(WORK)/epoch_20.pth $(WORK)/deploy.pth --data data/digits/val
	$(MMREPVGG) test $(CONFIG) $(WORK)/epoch_20.pth --metrics accuracy
	$(MMREPVGG) test $(DEPLOY_CONFIG) $(WORK)/deploy.pth --metrics accuracy
	$(MMREPVGG) compare $(CONFIG) $(WORK)/epoch_20.pth $(WORK)/deploy.pth
	$(MMREPVGG) report $(WORK)

quantization-study: install
	$(MMREPVGG) prepare-digits data/digits
	$(BIN)/python tools/quantization_study.py --jobs 2 --min-accuracy 97.5 \
		--out work_dirs/quantization-study/tables.md

toolchains: $(TOOLCHAINS:%=.venv-toolchains/%/installed)

.venv-toolchains/%/installed: studies/toolchains/requirements/%.txt
	$(PYTHON) -m venv --clear .venv-toolchains/$*
	.venv-toolchains/$*/bin/python -m pip install --disable-pip-version-check -r $<
	touch $@

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL)

# Without one, those tests are skipped and say so.
browser: install
	@command -v chromium chromium-browser google-chrome || \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } || \
		$(BIN)/playwright install --with-deps chromium

test-deep: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m deep $(PARALLEL)

soak: install
	$(BIN)/python tools/soak.py --minutes 60

test-onedl: .venv-onedl/installed
	.venv-onedl/bin/python -c 'import mmseg, mmdet, mmcv.ops'  # without them tests/onedl would not be collected
	OMP_NUM_THREADS=1 .venv-onedl/bin/python -m pytest $(PARALLEL)

# The forks replace packages that setup.py asks for by name, hence --no-deps. onedl-mmdetection needs the operators that
# onedl-mmcv compiles where it finds torch: for the CPU, since GPUs are hidden; that takes g++ and a quarter of an hour.
.venv-onedl/installed: constraints-onedl.txt setup.py
	$(PYTHON) -m venv --clear .venv-onedl
	.venv-onedl/bin/python -m pip install --disable-pip-version-check -c constraints-onedl.txt \
		torch torchvision onedl-mmengine 'setuptools<82' wheel packaging ninja
	CUDA_VISIBLE_DEVICES= .venv-onedl/bin/python -m pip install --disable-pip-version-check -c constraints-onedl.txt \
		--no-cache-dir --no-build-isolation onedl-mmcv
	.venv-onedl/bin/python -m pip install --disable-pip-version-check -c constraints-onedl.txt \
		onedl-mmpretrain onedl-mmsegmentation onedl-mmdetection \
		numpy rich opencv-python scikit-learn timm pytest pytest-xdist hypothesis \
		safetensors tensorboard onnx onnxscript onnxruntime openvino nncf \
		ncnn pnnx executorch torchao litert-torch ai-edge-litert ai-edge-quantizer coremltools \
		webdataset 'ray[data]' pyarrow streamlit playwright openmim jinja2 matplotlib
	.venv-onedl/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch .venv-onedl/installed

# One environment after another, 7 GB each. TOX picks some: make test-matrix TOX='run -e oldest'
# tox has an environment of its own: it does not fit beside the tested set.
TOX ?= run
test-matrix: .tox/launcher/bin/tox
	.tox/launcher/bin/tox $(TOX)

.tox/launcher/bin/tox:
	$(PYTHON) -m venv --clear .tox/launcher
	.tox/launcher/bin/python -m pip install --disable-pip-version-check tox==4.67.15

docs: install
	$(BIN)/sphinx-build $(SPHINX) -D language=en . docs/_build/en
	$(BIN)/sphinx-build $(SPHINX) -D language=zh_CN . docs/_build/zh_CN
	@echo 'built: docs/_build/en/index.html and docs/_build/zh_CN/index.html'

translations: install
	$(BIN)/sphinx-build $(SPHINX) -b gettext . docs/_build/gettext
	rm docs/_build/gettext/CHANGELOG.pot docs/_build/gettext/CONTRIBUTING.pot  # these stay English
	$(BIN)/sphinx-intl update --no-obsolete -p docs/_build/gettext -d docs/locale -l zh_CN

# docutils, which Sphinx needs, names the GPL for an Emacs mode that its wheel does not hold.
audit: install
	$(BIN)/python -m pip check
	$(BIN)/pip-licenses --from=mixed --partial-match --ignore-packages docutils --fail-on='GPL;General Public License' --summary

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: .venv/installed

# Made last, so that an interrupted installation is taken up again.
.venv/installed: constraints.txt setup.py pyproject.toml install.sh
	PYTHON="$(PYTHON)" ./install.sh

clean:
	rm -rf .venv .venv-onedl .venv-toolchains .tox build docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
