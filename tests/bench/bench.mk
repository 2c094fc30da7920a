# The bench. Included by the Makefile.

BENCH_TOOLS := $(patsubst tests/bench/%.c,$(BUILD)/tests/bench/%,$(wildcard tests/bench/*.c))
BENCH       := TORPOR_BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 \
               /usr/bin/python3 tests/bench/bench.py

$(BUILD)/tests/bench/%: tests/bench/%.c tests/bench/tool.h
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) $(CFLAGS) $(LDFLAGS) -o $@ $<

.PHONY: bench bench-quick bench-tools
bench-tools: $(BENCH_TOOLS) $(BUILD)/tests/workload/hog

bench: all bench-tools ## what a freeze and a thaw cost (6 minutes, as root)
	$(BENCH)

# Its figures say nothing.
bench-quick: all bench-tools ## does the bench work at all? (seconds, as root)
	$(BENCH) --quick
