# What a person types. `make` alone lists it.

# Test, lint, demo and image share one target folder: the host's triple, linked statically, which is what the image needs.
export CARGO_BUILD_TARGET ?= $(shell rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS ?= -C target-feature=+crt-static
TARGET := target/$(CARGO_BUILD_TARGET)
RUST_FILES := $(shell git ls-files '*.rs')
IMAGE ?=
APP_IMAGE ?=
CLUSTER ?=
ONCE ?=
# One build at a time, and no more jobs than cores.
.NOTPARALLEL:

help: ## what there is
	@sed -n 's/^\([a-z-]*\):.*## /  make \1|/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: ## the operator doing its work on a real cluster; ONCE=1 ends by itself, CLUSTER=current uses yours with IMAGE=
	@CLUSTER="$(CLUSTER)" IMAGE="$(IMAGE)" APP_IMAGE="$(APP_IMAGE)" ONCE="$(ONCE)" demo/demo.sh

test: test-fast test-cluster test-chart test-demo ## lints, unit, cluster and chart tests, the demo; sets up what it needs
	@echo "all tests passed"

test-fast: lint ## what needs no cluster
	cargo test --lib --bins --test docs --test generated --test layering

test-cluster:
	cargo build --bin seaworthy
	cargo test --no-run --test it
	tests/with-cluster.sh cargo test --test it -- --test-threads=4 # most of them wait most of the time

test-all: test ## make test, and the slow ones: thousands of objects, each request that may fail with each store
	tests/with-cluster.sh cargo test --test it -- --ignored --test-threads=4

test-chart:
	tests/chart/check.sh

test-demo: ## that the demo shows what it says
	ONCE=1 CLUSTER= IMAGE= APP_IMAGE= demo/demo.sh

lint: ## format and lints, warnings are errors
	rustfmt --edition 2024 --check $(RUST_FILES)
	cargo clippy --all-targets --all-features -- -D warnings

generate: ## CRDs and rights, from the code
	UPDATE=1 cargo test --test generated

bench: ## the figures in docs/performance.md
	tests/bench.sh

tools: ## build the servers and tools that tests use, into the cache
	tests/tools/build.sh kube containerd cni coredns pause tlsserver mkimage helm kubeconform schemas promtool vault moto

image: ## an OCI archive of the operator: $(TARGET)/release/seaworthy-image.tar
	cargo build --release --locked --bin seaworthy
	image/build.sh $(TARGET)/release/seaworthy $(or $(IMAGE),seaworthy:$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)) $(TARGET)/release/seaworthy-image.tar

.PHONY: help demo test test-all test-fast test-cluster test-chart lint generate bench tools image test-demo
