# The two commands of the README, and the parts of the second for daily work. Set-up is .ci/setup: it installs what is
# missing and says so.

CARGO ?= cargo
# Where rustup puts it when .ci/setup has just installed it.
export PATH := $(PATH):$(HOME)/.cargo/bin
export CLIPPY_CONF_DIR := $(CURDIR)/.ci
# A test that finds a program missing skips itself aloud. Here nothing may be skipped.
test unit-and-stories: export PGHERD_TEST_NO_SKIP := 1
# The same cases in every run: a run that fails is a change that failed. Others: PROPTEST_RNG_SEED=n, SEED=n, SEEDS=a..b.
test unit-and-stories: export PROPTEST_RNG_SEED ?= 1
# What failed is said by the message of the failed test; a trace through the runtime only pushes it out of sight.
test unit-and-stories: export RUST_BACKTRACE := 0
FMT := --config-path .ci/rustfmt.toml
NEXTEST := --config-file .ci/nextest.toml

.PHONY: help demo test setup-demo setup-test fmt lint doc unit-and-stories generated bench bench-at-rest bench-ctl campaign clean

help:
	@echo 'make demo   a three-member cluster on this machine, with a live view (without a terminal: a self-checking tour)'
	@echo 'make test   everything CI runs'
	@echo 'make bench  write outages of pgherd and Patroni, side by side'
	@echo 'make bench-at-rest  memory, processor time, DCS and REST requests of pgherd and Patroni, side by side'
	@echo 'make bench-ctl  time, memory and DCS reads of pgherdctl and patronictl, side by side'
	@echo 'make campaign  faults by lot on real processes, and what they cost'

demo: setup-demo
	$(CARGO) build --bins
	./target/debug/pgherd demo $(DEMO)

test: setup-test fmt lint doc unit-and-stories

setup-demo:
	@.ci/setup demo

setup-test:
	@.ci/setup test

fmt:
	$(CARGO) fmt --check -- $(FMT)

lint:
	$(CARGO) clippy --all-targets -- -D warnings

doc:
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --no-deps --document-private-items

unit-and-stories:
	$(CARGO) nextest run $(NEXTEST)

generated:
	UPDATE=1 $(CARGO) nextest run $(NEXTEST) --test generated

bench: setup-test
	$(CARGO) bench --bench write_outage

bench-at-rest: setup-test
	$(CARGO) bench --bench at_rest

bench-ctl: setup-test
	$(CARGO) build --release --bin pgherdctl
	$(CARGO) bench --profile dev --bench ctl

campaign: setup-test
	$(CARGO) bench --profile dev --bench campaign

clean:
	$(CARGO) clean
