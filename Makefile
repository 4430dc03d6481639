# `make demo` and `make test` are all that a user needs; each installs what is missing first.
#
#   make demo            build, then show the whole loop on this machine (ONCE=1: exit when it is through)
#   make test            build, then run every test
#   make lint            format, clippy with warnings as errors, dependency rules, shell scripts
#   make bench           measure what docs/benchmarks.md quotes (minutes)
#   make check-dynamic   build and try the engine with run-time backends (minutes; a build of its own)

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
	RUSTFLAGS="" $(CARGO) test --locked --target-dir $(TARGET_DIR)/dynamic -p muster-engine --features dynamic-backends
