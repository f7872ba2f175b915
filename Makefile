# Each target alone does all the set-up: a Python 3.11 or newer and a way to PyPI are enough.
#
#   make demo    the main job, in miniature: alanine dipeptide to F(phi, psi) and a report, in ./runs/demo
#   make test    every test but the slow statistical ones (make physics)
#   make lint    ruff, pyright, the layers
#   make lock    resolve the dependencies of pyproject.toml again
#   make wheel   dist/metastable-*.whl

PYTHON ?= $(firstword $(foreach p,python3 python3.11 python3.12 python3.13,$(if $(shell $(p) -c \
            "import sys; print(sys.version_info >= (3, 11) or '')" 2>/dev/null),$(p),)))
WORKERS ?= 2
VENV := .venv
bin := $(VENV)/bin
ready := $(VENV)/ready

.PHONY: demo test physics lint format lock wheel clean
.DEFAULT_GOAL := test

# The environment is the lock, to the byte. uv takes seconds, pip a minute; both check every hash.
$(ready): requirements.lock pyproject.toml
	@test -x $(bin)/python || "$(PYTHON)" -m venv $(VENV) || uv venv --seed --python ">=3.11" $(VENV)
	@command -v uv >/dev/null || test -x $(bin)/uv || $(bin)/python -m pip install --quiet uv \
	  || echo "uv is not to be had: pip does its work, more slowly"
	@PATH="$$PATH:$(CURDIR)/$(bin)"; if command -v uv >/dev/null; \
	  then install="uv pip install --quiet --compile-bytecode --python $(bin)/python"; \
	  else install="$(bin)/python -m pip install --quiet"; fi; \
	  $$install --require-hashes -r requirements.lock && $$install --no-deps --no-build-isolation -e .
	@touch $@

demo: $(ready)
	$(bin)/metastable demo

test: $(ready)
	$(bin)/python -m pytest -n $(WORKERS) -m "not physics"

physics: $(ready)
	$(bin)/python -m pytest -n $(WORKERS) -m physics

lint: $(ready)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/pyright
	$(bin)/lint-imports

format: $(ready)
	$(bin)/ruff check --fix .
	$(bin)/ruff format .

lock:
	uv pip compile pyproject.toml --quiet --group dev --universal --fork-strategy fewest --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --upgrade --output-file requirements.lock

wheel: $(ready)
	$(bin)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf $(VENV) dist build
