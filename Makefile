# Torpor: `make help` prints the menu.

BUILD    ?= build
CC       ?= cc
VERSION  := $(shell cat VERSION)

# Debian's hardening set; -Wconversion is left out, because it drowns what matters in casts.
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2
HARDEN   := -fstack-protector-strong -D_FORTIFY_SOURCE=2
PACKAGES := libsystemd libmicrohttpd jansson

# SAN=address,undefined builds with sanitizers into a tree of its own.
ifneq ($(SAN),)
BUILD    := build/$(subst $(comma),-,$(SAN))
CFLAGS   := -O1 -g -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
HARDEN   := -fstack-protector-strong
LDFLAGS  += -fsanitize=$(SAN)
endif
comma    := ,

ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DTORPOR_VERSION='"$(VERSION)"' -Iinclude -Itests/support \
             $(WARNINGS) $(HARDEN) $(CFLAGS) $(shell pkg-config --cflags $(PACKAGES)) -pthread
LIBS       = $(shell pkg-config --libs $(PACKAGES)) -pthread -lm

COMMON_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/common/*.c))
AGENT_OBJ  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out src/agent/main.c,$(wildcard src/agent/*.c)))
UNIT       := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/*.c))
SUPPORT    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))

.PHONY: all
all: $(BUILD)/freeze-agent

$(BUILD)/freeze-agent: $(BUILD)/src/agent/main.o $(BUILD)/libagent.a $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libcommon.a: $(COMMON_OBJ)
$(BUILD)/libagent.a: $(AGENT_OBJ)
$(BUILD)/lib%.a:
	@rm -f $@
	ar rcs $@ $^

$(BUILD)/%.o: %.c Makefile VERSION
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Some tests make system calls fail: ld gives them __wrap_CALL in the place of CALL.
$(BUILD)/tests/unit/test_file: WRAP := openat write fsync renameat unlinkat
$(BUILD)/tests/unit/test_log: WRAP := access sd_journal_sendv
$(BUILD)/tests/unit/test_worker: WRAP := pthread_create pthread_join

# Every test links the same objects as the program.
$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(SUPPORT) $(BUILD)/libagent.a $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) $(addprefix -Wl$(comma)--wrap=,$(WRAP)) -o $@ $^ $(LIBS) \
	    $(shell pkg-config --libs cmocka)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
