# make demo    train on the built-in synthetic scenes, sample, and write a report
# make test    linters and the whole test suite
# make pretrained  train, judge and export the models that lie in the package, see benchmarks/
# make docs    API reference from the docstrings, build/api/index.html
PYTHON ?= python3
BIN := .venv/bin
RUN ?= runs/shapes

.PHONY: install demo pretrained test lint docs clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt torch --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/python train.py configs/shapes.yaml --run $(RUN)
	$(BIN)/python sample.py \
		"a large red circle on a white background" \
		"a small blue star" \
		"two green squares" \
		"a large yellow heart above a small blue ring" \
		"a red cross to the left of a green triangle" \
		--run $(RUN) --num-images 4 --out $(RUN)/demo
	@echo "Images:   $(RUN)/demo/sheet.png"
	@echo "Report:   $(RUN)/report.html"

pretrained: install
	$(BIN)/python -m benchmarks.pretrained

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest

docs: install
	$(BIN)/python -m pdoc --output-directory build/api \
		dalle_mini_impl dalle_mini_impl/[a-z]*/ dalle_mini_impl/[a-z]*.py

clean:
	rm -rf .venv build dist *.egg-info
