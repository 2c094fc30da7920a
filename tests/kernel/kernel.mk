# The tests that need a kernel, and the demo. Included by the Makefile.

WORKLOADS  := $(patsubst tests/support/workload/%.c,$(BUILD)/tests/workload/%,$(wildcard tests/support/workload/*.c))
# Python's caches go nowhere: in the guest they would be lost, on the host they would litter.
# /usr/bin/python3, because another one may come first on the PATH that has no pytest.
PYTEST     := TORPOR_BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 \
              /usr/bin/python3 -m pytest -p no:cacheprovider
KERNEL     ?= tests/kernel
# Prepared here, because the guest has no network.
WITH_APP   := TORPOR_APP="$$(tests/support/app.sh)"

$(BUILD)/tests/workload/%: tests/support/workload/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) $(CFLAGS) $(LDFLAGS) -o $@ $<

.PHONY: deps
deps: ## install what the build and the tests need
	tests/support/install.sh

.PHONY: workloads
workloads: $(WORKLOADS)

# A skip is a failure there: the guest has everything.
.PHONY: kernel
kernel: all workloads ## the suite on a real kernel, in a guest (KERNEL=tests/kernel/test_x.py for one)
	$(WITH_APP) REQUIRE_KERNEL=1 tests/kernel/guest --timeout 1200 -- env $(PYTEST) $(KERNEL)

.PHONY: guest-test
guest-test: ## is the guest what its tests take it for?
	$(PYTEST) tests/support/test_guest.py

.PHONY: kernel-host
kernel-host: all workloads ## the suite on this machine's own kernel, as root (skips what it lacks)
	$(WITH_APP) $(PYTEST) $(KERNEL)

.PHONY: demo
demo: ## freeze and thaw a Vite dev server before your eyes (KEEP=1 leaves a shell)
	@KEEP=$(KEEP) TORPOR_BUILD=$(abspath $(BUILD)) tests/kernel/demo.sh
