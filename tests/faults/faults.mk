# What happens when the agent dies, or a system call fails, at any point. Included by the Makefile.

CRASHPOINT := $(BUILD)/tests/faults/crashpoint
FAULTS     ?= tests/faults

$(BUILD)/tests/faults/%: tests/faults/%.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) $(CFLAGS) $(LDFLAGS) -o $@ $<

.PHONY: faults faults-host
faults: all workloads $(CRASHPOINT) ## kill the agent and fail its system calls at every point, in a guest
	REQUIRE_KERNEL=1 tests/kernel/guest --timeout 1800 -- env $(PYTEST) $(FAULTS)

faults-host: all workloads $(CRASHPOINT) ## the same on this machine's own kernel, as root
	$(PYTEST) $(FAULTS)
