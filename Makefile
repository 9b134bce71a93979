# `make` checks everything that continuous integration checks; `make help` lists the rest.

CARGO ?= cargo
# One build serves the command, the tests and the benchmarks.
RELEASE := --release
# Folder of photographs for `make demo`; those that the scikit-image package carries by default.
IMAGES ?=
# Keeps a layer of Mesa's from writing to standard error.
export NODEVICE_SELECT := 1

.PHONY: all
all: lint test docs ## Check format, lints, tests and docs

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: build ## Encode real photographs, decode them on the CPU and a GPU, compare, show (IMAGES=folder for yours)
	@scripts/vulkan.sh
	@scripts/venv.sh pillow
	@target/venv/bin/python scripts/demo.py $(if $(IMAGES),--images "$(IMAGES)")

.PHONY: build
build: ## Build the command, target/release/kuat
	$(CARGO) build $(RELEASE)

.PHONY: setup
setup: build ## Install what the tests need: software GPU adapters, Python packages
	@scripts/vulkan.sh
	@scripts/adapters.sh
	@scripts/venv.sh -r tests/requirements.txt

.PHONY: test
test: setup ## Set up and run every test
	. scripts/environment.sh && $(CARGO) test $(RELEASE)
	. scripts/environment.sh && $(CARGO) test $(RELEASE) --test decode_gpu -- --ignored
	. scripts/environment.sh && target/venv/bin/python -m pytest tests

.PHONY: bench
bench: build ## Measure decoding beside its limits on this machine
	@scripts/vulkan.sh
	$(CARGO) bench

.PHONY: lint
lint: ## Check format and lints, with every set of features
	$(CARGO) fmt --check
	$(CARGO) clippy $(RELEASE) --all-targets -- -D warnings
	$(CARGO) clippy $(RELEASE) --no-default-features -- -D warnings
	$(CARGO) clippy $(RELEASE) --no-default-features --features encode -- -D warnings
	$(CARGO) clippy $(RELEASE) --no-default-features --features gpu -- -D warnings

.PHONY: docs
docs: ## Build the library's documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(RELEASE) --no-deps

.PHONY: format
format: ## Format the code
	$(CARGO) fmt

.PHONY: clean
clean: ## Remove everything that was built
	$(CARGO) clean
