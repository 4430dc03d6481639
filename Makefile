# `make demo` and `make test` are all that a user needs; each installs what is missing first.
#
#   make demo            build, then show the whole loop on this machine (ONCE=1: exit when it is through)
#   make test            build, then run every test
#   make lint            format, clippy with warnings as errors, dependency rules, shell scripts
#   make bench           measure what docs/benchmarks.md quotes (minutes)
#   make check-vulkan    compare dry runs with what a real Vulkan device takes, byte for byte (a build of its own, 20 CPU-minutes);
#                        VULKAN_DEVICE=N takes this machine's Nth GPU instead of Mesa's software device
#   make check-dynamic   run the engine's tests with backends chosen at run time (a build of its own, many minutes)

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.PHONY: demo test lint bench setup build check-vulkan check-dynamic

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

check-vulkan: setup
	.ci/setup-vulkan $(TARGET_DIR)/vulkan-sdk
	source $(TARGET_DIR)/vulkan-sdk/env
	# llama.cpp leaves software devices alone unless they are named.
	export GGML_VK_VISIBLE_DEVICES=$(or $(VULKAN_DEVICE),0)
	if [[ -z "$(VULKAN_DEVICE)" ]]; then
		VK_DRIVER_FILES=$$(compgen -G '/usr/share/vulkan/icd.d/lvp_icd*.json')
		export VK_DRIVER_FILES
	fi
	$(CARGO) test --workspace --locked --features muster-engine/vulkan --target-dir $(TARGET_DIR)/vulkan --test vulkan -- --nocapture
	# The audit as its user runs it, on that device too.
	$(CARGO) build --workspace --locked --features muster-engine/vulkan --target-dir $(TARGET_DIR)/vulkan --bin muster-agent
	agent=$(TARGET_DIR)/vulkan/debug/muster-agent
	state=$$(mktemp -d)
	trap 'rm -rf "$$state"' EXIT
	export MUSTER_AGENT_STATE=$$state
	$$agent audit --quick --json >"$$state/audit.json"
	grep -q '"device": "Vulkan' "$$state/audit.json" || { echo "the audit has no figure of a Vulkan device" >&2; exit 1; }
	$$agent audit --quick

check-dynamic: setup
	export RUSTFLAGS=""
	dynamic() { $(CARGO) "$$@" --locked --target-dir $(TARGET_DIR)/dynamic -p muster-engine --features dynamic-backends; }
	dynamic build
	mkdir -p $(TARGET_DIR)/dynamic/debug/backends
	cp $(TARGET_DIR)/dynamic/debug/build/llama-cpp-sys-2-*/out/backends/*.so $(TARGET_DIR)/dynamic/debug/backends/
	dynamic test
