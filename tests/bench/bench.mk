# The bench. Included by the Makefile.

BENCH_TOOLS := $(patsubst tests/bench/%.c,$(BUILD)/tests/bench/%,$(wildcard tests/bench/*.c))
BENCH       := TORPOR_BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 \
               /usr/bin/python3 tests/bench/bench.py

$(BUILD)/tests/bench/%: tests/bench/%.c tests/bench/tool.h
	@mkdir -p $(@D)
	$(CC) -std=gnu17 -D_GNU_SOURCE $(WARNINGS) $(HARDEN) $(CFLAGS) $(LDFLAGS) -o $@ $<

LADDER      := TORPOR_BUILD=$(abspath $(BUILD)) PYTHONDONTWRITEBYTECODE=1 \
               /usr/bin/python3 tests/bench/ladder.py

.PHONY: bench bench-quick bench-tools bench-ladder bench-ladder-docs
bench-tools: $(BENCH_TOOLS) $(BUILD)/tests/workload/hog

bench: all bench-tools ## what a freeze and a thaw cost (15 minutes, as root)
	$(BENCH)
	$(LADDER)

# Its figures say nothing.
bench-quick: all bench-tools ## does the bench work at all? (seconds, as root)
	$(BENCH) --quick

bench-ladder: all bench-tools ## what each way to put an app to rest costs its next visitor (6 minutes, as root)
	$(LADDER)

# From what the last bench-ladder measured.
bench-ladder-docs: ## docs/ladder.svg and the README's table
	/usr/bin/python3 tests/bench/ladder_docs.py $(BUILD)/bench/ladder.json
