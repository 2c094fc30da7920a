# What prefetching is worth. Included by the Makefile.

PREFETCH_TOOLS := $(BUILD)/tests/bench/prefetch/driver $(BUILD)/tests/bench/prefetch/hog
PREFETCH       := env TORPOR_BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 \
                  /usr/bin/python3 tests/bench/prefetch/prefetch.py

$(BUILD)/tests/bench/prefetch/hog: tests/bench/prefetch/hog.c
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) $(CFLAGS) $(LDFLAGS) -o $@ $<

$(BUILD)/tests/bench/prefetch/driver: $(BUILD)/tests/bench/prefetch/driver.o $(BUILD)/libagent.a \
                                      $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

.PHONY: bench-prefetch bench-prefetch-uml
bench-prefetch: all workloads $(PREFETCH_TOOLS) ## first answers after a wake, with and without prefetch, on an emulated machine (8 minutes)
	tests/bench/qguest --timeout 1800 --results $(BUILD)/bench -- \
	    $(PREFETCH) --json $(abspath $(BUILD))/bench/prefetch.json $(PREFETCH_FLAGS)

bench-prefetch-uml: all workloads $(PREFETCH_TOOLS) ## the same in User Mode Linux, where ratios are smaller
	tests/kernel/guest --timeout 1800 --results $(BUILD)/bench -- \
	    $(PREFETCH) --json $(abspath $(BUILD))/bench/prefetch-uml.json $(PREFETCH_FLAGS)
