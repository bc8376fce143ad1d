# make demo   train, convert and test RepVGG-A0 on real images, in .venv
# make test   run the tests there
# make lint   check format, style and types there
PYTHON ?= python3
BIN := .venv/bin
WORK := work_dirs/repvgg-a0_digits
CONFIG := configs/repvgg/repvgg-a0_digits.py
DEPLOY_CONFIG := configs/repvgg/deploy/repvgg-a0_digits_deploy.py

.PHONY: demo test lint format install clean

demo: install
	$(BIN)/python tools/prepare_digits.py data/digits
	$(BIN)/python tools/train.py $(CONFIG) --work-dir $(WORK)
	$(BIN)/python tools/reparameterize_model.py $(CONFIG) $(WORK)/epoch_20.pth $(WORK)/deploy.pth --data data/digits/val
	$(BIN)/python tools/test.py $(CONFIG) $(WORK)/epoch_20.pth --metrics accuracy
	$(BIN)/python tools/test.py $(DEPLOY_CONFIG) $(WORK)/deploy.pth --metrics accuracy
	$(BIN)/python tools/compare_forms.py $(CONFIG) $(WORK)/epoch_20.pth $(WORK)/deploy.pth

test: install
	$(BIN)/python -m pytest

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
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
