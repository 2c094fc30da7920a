# Torpor: `make help` prints the menu.

comma    := ,
BUILD    ?= build
CC       ?= cc
VERSION  := $(shell cat VERSION)

# Debian's hardening set; -Wconversion is left out, because it drowns what matters in casts.
CFLAGS   ?= -O2 -g
WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla \
            -Wpointer-arith -Wwrite-strings -Wundef -Wformat=2
HARDEN   := -fstack-protector-strong -D_FORTIFY_SOURCE=2
PACKAGES := libsystemd libmicrohttpd jansson libbpf libcap-ng

# SAN=address,undefined builds with sanitizers into a tree of its own.
ifneq ($(SAN),)
BUILD    := build/$(subst $(comma),-,$(SAN))
CFLAGS   := -O1 -g -fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all
HARDEN   := -fstack-protector-strong
LDFLAGS  += -fsanitize=$(SAN)
endif

ALL_CFLAGS = -std=gnu17 -D_GNU_SOURCE -DTORPOR_VERSION='"$(VERSION)"' -Iinclude -Itests/support -I$(BUILD)/gen \
             $(WARNINGS) $(HARDEN) $(CFLAGS) $(shell pkg-config --cflags $(PACKAGES)) -pthread
LIBS       = $(shell pkg-config --libs $(PACKAGES)) -pthread -lm

COMMON_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(wildcard src/common/*.c))
AGENT_OBJ  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out src/agent/main.c %.bpf.c,$(wildcard src/agent/*.c)))
UNIT       := $(patsubst tests/unit/%.c,$(BUILD)/tests/unit/%,$(wildcard tests/unit/*.c))
SUPPORT    := $(patsubst %.c,$(BUILD)/%.o,$(wildcard tests/support/*.c))

.DEFAULT_GOAL := all

.PHONY: all help
all: $(BUILD)/freeze-agent ## build the programs (CC=clang, SAN=address,undefined)

help: ## print this menu
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | \
	    awk -F '\t' '{ printf "  make %-16s %s\n", $$1, $$2 }'

$(BUILD)/freeze-agent: $(BUILD)/src/agent/main.o $(BUILD)/libagent.a $(BUILD)/libcommon.a
	@echo "  LINK $@"
	@$(CC) $(LDFLAGS) -o $@ $^ $(LIBS)

$(BUILD)/libcommon.a: $(COMMON_OBJ)
$(BUILD)/libagent.a: $(AGENT_OBJ)
$(BUILD)/lib%.a:
	@rm -f $@
	@echo "  AR   $@"
	@ar rcs $@ $^

$(BUILD)/%.o: %.c Makefile VERSION
	@mkdir -p $(@D)
	@echo "  CC   $@"
	@$(CC) $(ALL_CFLAGS) -MMD -MP -c -o $@ $<

# Objects of tests, too, which make would take for intermediate ones and remove.
.PRECIOUS: $(BUILD)/%.o

# Some tests make system calls fail: ld gives them __wrap_CALL in the place of CALL.
$(BUILD)/tests/unit/test_file: WRAP := openat write fsync renameat unlinkat readdir
$(BUILD)/tests/unit/test_log: WRAP := access sd_journal_sendv
$(BUILD)/tests/unit/test_queues: WRAP := setns sockdiag_dump_tcp sockdiag_dump_udp
$(BUILD)/tests/unit/test_worker: WRAP := pthread_create pthread_join
# The fake kernel and the fake disk of tests/support/fake_calls.h.
FAKED := $(patsubst %,$(BUILD)/tests/unit/test_%,api freezer pod reclaim reconcile watch)
$(FAKED): WRAP := write file_replace file_remove
$(BUILD)/tests/unit/test_api: WRAP += freezer_freeze
$(BUILD)/tests/unit/test_reconcile: WRAP += file_read
$(BUILD)/tests/unit/test_watch: WRAP += inotify_add_watch loop_now_usec loop_timer read transition_check

# ---- BPF: compiled by clang whatever compiles the rest, embedded as a skeleton ----

BPF_CLANG ?= clang
BPFTOOL   ?= $(or $(shell command -v bpftool),/usr/sbin/bpftool)

$(BUILD)/gen/%.skel.h: src/agent/%.bpf.c include/agent/trigger_abi.h
	@mkdir -p $(@D)
	$(BPF_CLANG) -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Iinclude \
	    -I/usr/include/$(shell gcc -print-multiarch) -c -o $(BUILD)/gen/$*.bpf.o $<
	$(BPFTOOL) gen skeleton $(BUILD)/gen/$*.bpf.o name $*_bpf > $@.tmp
	mv $@.tmp $@

$(BUILD)/src/agent/trigger.o: $(BUILD)/gen/trigger.skel.h

# Every test links the same objects as the program.
$(BUILD)/tests/unit/%: $(BUILD)/tests/unit/%.o $(SUPPORT) $(BUILD)/libagent.a $(BUILD)/libcommon.a
	$(CC) $(LDFLAGS) $(addprefix -Wl$(comma)--wrap=,$(WRAP)) -o $@ $^ $(LIBS) \
	    $(shell pkg-config --libs cmocka)

# ---- checks, cheap ones first ----

SOURCES := $(shell git ls-files '*.c' '*.h' 2>/dev/null)

.PHONY: check check-fast unit unit-san unit-valgrind layering format format-check lint clang

# Every point of a crash is tried on this machine's own kernel, which is fast; in the guest, where
# there is swap, as many as time allows: `make faults` tries them all. AddressSanitizer wants its
# shadow where User Mode Linux has its libraries, so it runs on this machine's kernel, too.
check: deps ## everything that must hold before a commit lands
	$(MAKE) check-fast
	$(MAKE) unit-san
	$(MAKE) fuzz
	$(MAKE) kernel
	$(MAKE) faults-host
	$(MAKE) faults FAULTS_STEP=7
	$(MAKE) SAN=address,undefined KERNEL=tests/kernel/test_freeze.py kernel-host
	$(MAKE) SAN=undefined KERNEL=tests/kernel/test_freeze.py kernel
	$(MAKE) bench-quick

check-fast: layering format-check all clang lint check-docs unit ## what takes a minute

unit: $(UNIT) ## unit tests
	@set -e; for test in $(UNIT); do echo "$$test"; $$test; done

unit-san: ## unit tests with AddressSanitizer, UndefinedBehaviorSanitizer, and under valgrind
	$(MAKE) SAN=address,undefined unit
	$(MAKE) unit-valgrind

# Valgrind 3.19 (Debian 12) knows no openat2(2), without which no cgroup is opened. LeakSanitizer sees
# these tests, too.
WITH_CGROUPS := $(patsubst %,$(BUILD)/tests/unit/test_%,api cgroup freezer layout pod reclaim reconcile watch)

unit-valgrind: $(filter-out $(WITH_CGROUPS),$(UNIT))
	@set -e; for test in $^; do echo "$$test (valgrind)"; \
	    VALGRIND=1 valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite \
	        --child-silent-after-fork=yes $$test; done

clang: ## build with the other compiler, warnings as errors
	$(MAKE) BUILD=build/clang CC=clang all

# Folders are layers: common uses nothing of ours, agent and backend use common and never each other.
layering: ## does each layer include only what it may?
	@! grep -nE '#include "(agent|backend|cli)/' src/common/*.[ch] include/common/*.h
	@! grep -nE '#include "(backend|cli)/' src/agent/*.[ch] include/agent/*.h
	@! grep -lE 'SYS_openat2' $(filter-out src/agent/cgroup.c,$(wildcard src/agent/*.c))
	@! grep -lE '"common/file\.h"' $(filter-out src/agent/store.c,$(wildcard src/agent/*.c))
	@! grep -lE '<microhttpd' $(filter-out $(wildcard src/common/http*),$(wildcard src/*/*.[ch] include/*/*.h))

format: ## format the sources
	clang-format -i $(SOURCES)

format-check: ## are the sources formatted?
	@clang-format --dry-run --Werror $(SOURCES)

lint: export TIDY = $(subst $(space),$(comma),$(TIDY_CHECKS))
lint: export FLAGS = $(ALL_CFLAGS) -Wno-unknown-warning-option
lint: $(BUILD)/gen/trigger.skel.h ## static analysis: cppcheck and clang-tidy
	cppcheck --quiet --error-exitcode=1 --std=c11 --enable=warning,performance,portability \
	    --inline-suppr --suppress=missingIncludeSystem --suppress=uninitvar \
	    --suppress=legacyUninitvar -Iinclude -DTORPOR_VERSION='""' \
	    --include=tests/support/cppcheck.h -i src/agent/trigger.bpf.c src
	@echo "  TIDY src"
	@printf '%s\n' $(filter-out %.bpf.c,$(wildcard src/*/*.c)) | xargs -P $(shell nproc) -n 8 sh -c \
	    'eval clang-tidy --quiet --warnings-as-errors="\*" --checks="\$$TIDY" "$$@" -- "$$FLAGS"' tidy

# Off are matters of taste, and those that know neither va_start nor who owns what in a callback.
TIDY_CHECKS := -* clang-analyzer-* bugprone-* -clang-analyzer-security.insecureAPI.* \
        -clang-analyzer-valist.Uninitialized -clang-analyzer-unix.Malloc \
        -clang-analyzer-optin.portability.UnixAPI -clang-analyzer-core.NullDereference \
        -clang-analyzer-core.NonNullParamChecker -clang-analyzer-core.uninitialized.Assign \
        -clang-analyzer-core.UndefinedBinaryOperatorResult \
        -bugprone-easily-swappable-parameters -bugprone-reserved-identifier \
        -bugprone-assignment-in-if-condition -bugprone-narrowing-conversions \
        -bugprone-implicit-widening-of-multiplication-result \
        -bugprone-suspicious-string-compare -bugprone-macro-parentheses
space := $(empty) $(empty)

include $(wildcard tests/*/*.mk docs/*.mk)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
