# Fuzzing. Included by the Makefile. Every tests/fuzz/fuzz_NAME.c is a fuzzer of its own; it may have
# a corpus in tests/fuzz/corpus/NAME and a dictionary tests/fuzz/NAME.dict.

FUZZ_CC      ?= clang
FUZZ_SECONDS ?= 20
FUZZ_BUILD   := build/fuzz
FUZZERS      := $(patsubst tests/fuzz/fuzz_%.c,%,$(wildcard tests/fuzz/fuzz_*.c))

# fuzzer-no-link: coverage in every object, libFuzzer's main in the fuzzers alone.
FUZZ_SAN     := address,undefined
FUZZ_CFLAGS  := -O1 -g -fno-omit-frame-pointer -fno-sanitize-recover=all \
                -fsanitize=fuzzer-no-link,$(FUZZ_SAN)

$(BUILD)/tests/fuzz/%: $(BUILD)/tests/fuzz/%.o $(SUPPORT) $(BUILD)/libagent.a $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -fsanitize=fuzzer,$(FUZZ_SAN) -o $@ $^ $(LIBS)

# What is found goes into a copy of the corpus; an input that crashes is kept beside it.
.PHONY: fuzz
fuzz: ## fuzz every parser for a while (FUZZ_SECONDS=20 each)
	$(MAKE) SAN= BUILD=$(FUZZ_BUILD) CC=$(FUZZ_CC) CFLAGS='$(FUZZ_CFLAGS)' \
	    HARDEN=-fstack-protector-strong $(FUZZERS:%=$(FUZZ_BUILD)/tests/fuzz/fuzz_%)
	@set -e; for name in $(FUZZERS); do \
	    corpus=$(FUZZ_BUILD)/corpus/$$name; mkdir -p $$corpus; \
	    cp -n tests/fuzz/corpus/$$name/* $$corpus/ 2>/dev/null || :; \
	    dict=; [ ! -f tests/fuzz/$$name.dict ] || dict=-dict=tests/fuzz/$$name.dict; \
	    echo "fuzz $$name"; \
	    $(FUZZ_BUILD)/tests/fuzz/fuzz_$$name -max_total_time=$(FUZZ_SECONDS) -timeout=10 \
	        -artifact_prefix=$(FUZZ_BUILD)/crash-$$name- $$dict $$corpus \
	        2> $(FUZZ_BUILD)/$$name.log || { tail -n 60 $(FUZZ_BUILD)/$$name.log; exit 1; }; \
	    tail -n 1 $(FUZZ_BUILD)/$$name.log; \
	done
