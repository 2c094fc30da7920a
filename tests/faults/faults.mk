# What happens when the agent dies, or a system call fails, at any point. Included by the Makefile.

CRASHPOINT := $(BUILD)/tests/faults/crashpoint
FAULTS     ?= tests/faults
# FAULTS_STEP=5: every fifth point only.
FAULTS_STEP ?= 1

$(BUILD)/tests/faults/%: tests/faults/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) $(CFLAGS) $(LDFLAGS) -o $@ $<

.PHONY: faults faults-host
faults: all workloads $(CRASHPOINT) ## kill the agent and fail its system calls at every point, in a guest
	REQUIRE_KERNEL=1 tests/kernel/guest --timeout 2700 -- env FAULTS_STEP=$(FAULTS_STEP) $(PYTEST) $(FAULTS)

faults-host: all workloads $(CRASHPOINT) ## the same on this machine's own kernel, as root
	FAULTS_STEP=$(FAULTS_STEP) $(PYTEST) $(FAULTS)
