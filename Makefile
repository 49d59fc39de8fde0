# Thin: each target is a command that can be typed by hand. `make demo` and `make test` are the two to know.

TARGET_DIR := $(or $(CARGO_TARGET_DIR),$(CURDIR)/target)
HOST := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
PREFIX ?= /usr/local
export CARGO_TARGET_DIR := $(TARGET_DIR)
# Behind PATH, where Debian's PATH of an ordinary user has no administrators' programs, such as mke2fs.
export PATH := $(TARGET_DIR)/release:$(PATH):/usr/sbin:/sbin

.PHONY: all setup build tools agent test test-firecracker test-dev-image test-image-build test-faults test-defects bench bench-tap \
	bench-create lint demo install install-built clean

all: build

setup:
	pipelines/setup

build: tools agent

tools:
	cargo build --release --locked

# Static, because it runs in any guest; its own target directory, because cargo builds its libraries for that again.
agent:
	RUSTFLAGS='-C target-feature=+crt-static' cargo build --release --locked -p guest-agent --target $(HOST) \
		--target-dir $(TARGET_DIR)/agent
	install -D -m 755 $(TARGET_DIR)/agent/$(HOST)/release/guest-agent $(TARGET_DIR)/libexec/banger/guest-agent

lint:
	cargo fmt --check --all
	cargo clippy --release --locked --workspace --all-targets -- -D warnings
	shellcheck -x pipelines/* .ci/run
	mandoc -T lint -W warning man/*
	@if cargo deny --version >/dev/null 2>&1; then cargo deny check bans licenses sources; \
	else echo 'NOT RUN: cargo deny (cargo install cargo-deny)'; fi

# Twice as many tests as there are processors: most of the time each waits. Of real guests there is one at a time all the same.
AT_ONCE := --test-threads $$((2 * $$(nproc)))

test: setup build lint
	cargo test --release --locked --workspace --exclude banger
	cargo test --release --locked -p banger -- $(AT_ONCE)

# The suite for a VMM, which `test` runs on what the host has, on the Firecracker that BG_FIRECRACKER names.
SUITE := vm::life vm::crash vm::guest vm::ssh
test-firecracker:
	@not_run() { echo "NOT RUN: the suite on Firecracker ($$1)"; exit 0; }; \
	[ -n "$$BG_FIRECRACKER" ] || not_run 'BG_FIRECRACKER names none'; \
	[ -x "$$BG_FIRECRACKER" ] || not_run "$$BG_FIRECRACKER is no program"; \
	{ [ -r /dev/kvm ] && [ -w /dev/kvm ]; } || not_run '/dev/kvm cannot be opened'; \
	[ "$$(uname -m)" != x86_64 ] || grep -qwE '^flags.*(vmx|svm)' /proc/cpuinfo || \
		not_run 'KVM is not usable: the processor has neither vmx nor svm'; \
	$(MAKE) setup build && \
	BG_VMM=firecracker cargo test --release --locked -p banger --test tests -- $(SUITE) --nocapture

# Ten minutes and a gigabyte: the whole set of packages for developers, really installed.
test-dev-image: setup build
	bg-kernel build | bg-rootfs build --distro debian | \
		bg-image-build --force --size 6G --memory 2G --vcpu 2 --packages @dev,@extra >/dev/null

# Half an hour: image builds, ended at every stage with every signal, and those of the README.
test-image-build: setup build
	BG_TEST_FULL=1 cargo test --release --locked -p banger --test tests -- a_build_ended vm::readme --nocapture

# All of what `test` tries a sample of: every system call gone wrong, crowds, random histories, thousands of lives, thirty of
# them with real guests.
test-faults: setup build
	cargo build --release --locked -p banger --examples
	BG_TEST_FULL=1 cargo test --release --locked -p banger --test tests -- faults crash store:: hostile audit \
		net::killed net::failing vm::soak --nocapture $(AT_ONCE)

# Defects that somebody could make, one by one in a copy of this tree, each of which a test has to catch.
test-defects: setup
	pipelines/test-defects

# What building costs, as ratios; docs/performance.md has what was measured.
bench: setup build
	cargo bench --locked --bench image_build
	cargo bench --locked --bench void

# How long a VM waits for its TAP; docs/performance.md has what was measured.
bench-tap: tools
	pipelines/in-netns bg-bench tap

# From `bg-vm create` to SSH, or the host's part alone: make bench-create ARGS="--runs 2", ARGS=--fake-vmm.
bench-create: build
	cargo build --release --locked --example fake-firecracker
	bg-bench create $(ARGS)

demo: setup build
	pipelines/demo

install: build
	@$(MAKE) --no-print-directory install-built

# For all users: the tools, the manual, and behind the tools the guest agent, the vsock device that `setup` has built, and the
# pipelines.
BINS := $(TARGET_DIR)/release
LIBEXEC := $(DESTDIR)$(PREFIX)/libexec/banger
MAN := $(DESTDIR)$(PREFIX)/share/man
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/banger
VSOCK := $(or $(shell command -v vhost-device-vsock),$(wildcard $(CACHE)/vhost-device-vsock/bin/vhost-device-vsock))
PIPELINES := bundle create customize demo demo-vm in-netns setup void
install-built:
	install -d $(DESTDIR)$(PREFIX)/bin $(LIBEXEC)/pipelines $(MAN)/man1 $(MAN)/man5 $(MAN)/man7
	install -m 755 $(addprefix $(BINS)/,$(notdir $(basename $(wildcard bins/*.rs)))) $(DESTDIR)$(PREFIX)/bin
	install -m 755 $(TARGET_DIR)/libexec/banger/guest-agent $(LIBEXEC)
	$(if $(VSOCK),install -m 755 $(VSOCK) $(LIBEXEC),@echo 'not installed: vhost-device-vsock, which make setup builds' >&2)
	install -m 755 $(addprefix pipelines/,$(PIPELINES)) $(LIBEXEC)/pipelines
	install -m 644 pipelines/lib.sh $(LIBEXEC)/pipelines
	install -m 644 man/*.1 $(MAN)/man1
	install -m 644 man/*.5 $(MAN)/man5
	install -m 644 man/*.7 $(MAN)/man7

clean:
	cargo clean
