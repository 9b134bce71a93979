# `make` checks everything that continuous integration checks; `make help` lists the rest.

CARGO ?= cargo
# One build serves the command, the tests and the benchmarks.
RELEASE := --release
# Folder of photographs for `make demo` and the benchmarks, which want a folder per class in it; those that the
# scikit-image package carries by default.
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
setup: build ## Install what the tests need: software GPU adapters, Python packages, torch
	@scripts/vulkan.sh
	@scripts/adapters.sh
	@scripts/venv.sh -r tests/requirements.txt ./python
	@scripts/torch.sh pytest pillow ./python

.PHONY: test
test: setup ## Set up and run every test
	. scripts/environment.sh && $(CARGO) test $(RELEASE)
	. scripts/environment.sh && $(CARGO) test $(RELEASE) --test decode_gpu -- --ignored
	target/venv/bin/python -m mypy.stubtest kuat._kuat
	target/venv/bin/python -m mypy --strict python/tests/typing_example.py
	. scripts/environment.sh && KUAT_TEST_WITHOUT_TORCH=1 target/venv/bin/python -m pytest tests python/tests
	. scripts/environment.sh && unset WGPU_BACKEND && target/venv-torch/bin/python -m pytest \
		python/tests/test_torch.py python/tests/test_readme.py python/tests/test_encode.py

.PHONY: validation
validation: ## Run the GPU tests under Vulkan's validation layer (TARGETS="decode_gpu python"); ten minutes
	@scripts/vulkan.sh
	@scripts/adapters.sh
	@scripts/venv.sh -r tests/requirements.txt ./python
	tests/long/validation.sh $(TARGETS)

.PHONY: wheel
wheel: ## Build the Python package, target/wheels/kuat-*.whl, for every Python from 3.9 on
	@scripts/venv.sh "maturin[zig]>=1.9,<2"
	rm -f target/wheels/*.whl
	. target/venv/bin/activate && maturin build --release --manifest-path python/Cargo.toml --out target/wheels \
		$(if $(filter Linux,$(shell uname)),--zig --compatibility manylinux2014)

# `make bench BENCH="--only peers --peers kuat,raw"` measures less; `--help` lists the rest.
BENCH ?=
REPORT := PYTHONPATH=benches target/venv-report/bin/python -m
PHOTOGRAPHS = $(or $(IMAGES),$(shell target/venv-report/bin/python scripts/photographs.py))

.PHONY: bench
bench: build report-setup ## Measure this machine, kuat beside its limits and its peers; write BENCHMARKS.md (IMAGES=folder)
	@scripts/vulkan.sh
	@scripts/peers.sh
	$(REPORT) report measure --images "$(PHOTOGRAPHS)" $(BENCH)

.PHONY: report
report: report-setup ## Write BENCHMARKS.md again from benches/results
	$(REPORT) report page

# Pictures in folders of any depth; each may be left out. Those of another set stay as they were on the page.
KODAK ?=
CIFAR ?=
# An archive with codebooks as the built-in ones, but trained without Kodak's pictures, for these.
KODAK_BOOKS ?=
CROP_BOOKS ?=
SETS = $(if $(IMAGES),--images "$(IMAGES)") $(if $(CIFAR),--cifar "$(CIFAR)")

.PHONY: quality
quality: ## Measure PSNR, SSIM and speed beside JPEG, WebP and BC1; write QUALITY.md (IMAGES=, KODAK=, CIFAR=folder)
	@VENV=target/venv-report scripts/venv.sh matplotlib pillow scikit-image simplejpeg ./python
	PYTHONPATH=benches target/venv-report/bin/python -m quality measure $(SETS) \
		$(if $(KODAK),--kodak "$(KODAK)") $(if $(KODAK_BOOKS),--kodak-books "$(KODAK_BOOKS)") \
		$(if $(CROP_BOOKS),--crop-books "$(CROP_BOOKS)")

.PHONY: train-quality
train-quality: ## Train a network on original, JPEG's and decoded pixels; write QUALITY.md (IMAGES=, CIFAR=folder of classes)
	@scripts/torch.sh pillow ./python
	@VENV=target/venv-report scripts/venv.sh matplotlib pillow tqdm
	PYTHONPATH=benches target/venv-torch/bin/python -m quality.train $(SETS)
	PYTHONPATH=benches target/venv-report/bin/python -m quality page

.PHONY: report-setup
report-setup:
	@VENV=target/venv-report scripts/venv.sh matplotlib pillow tqdm

.PHONY: builtin
builtin: ## Train the codebooks of layers that come with the encoder (IMAGES="folder folder ...")
	@test -n "$(IMAGES)" || { echo 'say on which photographs: make builtin IMAGES="folder folder ..."' >&2; exit 2; }
	$(CARGO) run $(RELEASE) --example builtin -- src/encode/layers/builtin.qvq $(IMAGES)

.PHONY: peers
peers: report-setup ## Measure torch's batches beside raw pixels and image files, in a minute (IMAGES=folder)
	@scripts/peers.sh kuat raw torchvision
	$(REPORT) peers --images "$(PHOTOGRAPHS)" --peers kuat,raw,torchvision --work "f32 NCHW" --batch 256

.PHONY: overhead
overhead: build ## Measure the Python package beside the Rust decoder it calls (ARCHIVE=file.qvq)
	@test -n "$(ARCHIVE)" || { echo "say which archive: make overhead ARCHIVE=file.qvq" >&2; exit 2; }
	$(CARGO) build $(RELEASE) --example throughput
	@scripts/venv.sh ./python
	target/venv/bin/python benches/overhead.py "$(ARCHIVE)"

# Runs of minutes to hours, no part of `make test`: N and SECONDS say how long.
LONG := . scripts/environment.sh && target/venv/bin/python tests/long

.PHONY: kills
kills: build long-setup ## Kill encodings at random moments; what is left must be whole or nothing (N=500)
	$(LONG)/kills.py --kills $(or $(N),500)

.PHONY: soak
soak: build long-setup ## Read from threads and forked workers for long, each batch checked, memory watched (SECONDS=600)
	$(LONG)/soak.py --seconds $(or $(SECONDS),600)

.PHONY: mutations
mutations: build long-setup ## Read damaged and forged archives, through Python and the command (N=10000)
	$(LONG)/mutations.py --number $(or $(N),10000)

.PHONY: long-setup
long-setup:
	@scripts/vulkan.sh
	@scripts/venv.sh -r tests/requirements.txt ./python

# `make fuzz SECONDS=600 TARGETS="open decode"` takes longer over fewer.
TARGETS ?=

.PHONY: fuzz
fuzz: ## Fuzz what reads files and what decodes them, a minute each (SECONDS=600, TARGETS="open decode")
	@tests/long/fuzz.sh "$(or $(SECONDS),60)" $(TARGETS)

.PHONY: sanitize
sanitize: ## Run tests under AddressSanitizer and ThreadSanitizer, and the Python package's under AddressSanitizer
	@tests/long/sanitize.sh address
	@tests/long/sanitize.sh thread
	@tests/long/sanitize.sh python

.PHONY: valgrind
valgrind: ## Run tests and the Python package under valgrind's memcheck
	@tests/long/valgrind.sh memcheck
	@tests/long/valgrind.sh python

.PHONY: deny
deny: ## Check the dependencies: licences, sources, duplicates, and advisories where they can be fetched
	@tests/long/deny.sh

.PHONY: lint
lint: ## Check format and lints, with every set of features
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml --check
	$(CARGO) clippy $(RELEASE) --workspace --all-targets -- -D warnings
	$(CARGO) clippy $(RELEASE) --no-default-features -- -D warnings
	$(CARGO) clippy $(RELEASE) --no-default-features --features encode -- -D warnings
	$(CARGO) clippy $(RELEASE) --no-default-features --features gpu -- -D warnings
	@scripts/venv.sh ruff
	target/venv/bin/ruff format --check
	target/venv/bin/ruff check

.PHONY: docs
docs: ## Build the library's documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(RELEASE) --no-deps

.PHONY: format
format: ## Format the code
	$(CARGO) fmt --all
	$(CARGO) fmt --manifest-path fuzz/Cargo.toml
	@scripts/venv.sh ruff
	target/venv/bin/ruff format
	target/venv/bin/ruff check --fix

.PHONY: clean
clean: ## Remove everything that was built
	$(CARGO) clean
