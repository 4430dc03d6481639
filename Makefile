# `make demo` and `make test` are all that a user needs; each installs what is missing first.
#
#   make demo            build, then show the whole loop on this machine (ONCE=1: exit when it is through)
#   make test            build, then run every test
#   make lint            format, clippy with warnings as errors, dependency rules, shell scripts
#   make bench           measure what docs/benchmarks.md quotes (minutes)
#   make check-dynamic   run the engine's tests with backends chosen at run time (a build of its own, many minutes)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: demo test lint bench setup build check-dynamic

CARGO := cargo
TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)

setup:
	@.ci/setup build

# Builds everything that demo and tests share, once.
build: setup
	@$(CARGO) build --workspace --locked

demo: build
	@exec $(TARGET_DIR)/debug/muster-demo

test: setup
	@.ci/setup test
	$(CARGO) test --workspace --locked

lint: setup
	@.ci/setup lint
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	.ci/deny

bench: build
	@exec $(TARGET_DIR)/debug/muster-bench

check-dynamic: setup
	export RUSTFLAGS=""
	dynamic() { $(CARGO) "$$@" --locked --target-dir $(TARGET_DIR)/dynamic -p muster-engine --features dynamic-backends; }
	dynamic build
	mkdir -p $(TARGET_DIR)/dynamic/debug/backends
	cp $(TARGET_DIR)/dynamic/debug/build/llama-cpp-sys-2-*/out/backends/*.so $(TARGET_DIR)/dynamic/debug/backends/
	dynamic test
