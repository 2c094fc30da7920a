#include "agent/kernfile.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

/* ---- one value ---- */

static void test_a_value_is_a_number_or_max(void **state)
{
    static const struct {
        const char *text;
        uint64_t value;
    } good[] = {
        { "0\n", 0 },
        { "0", 0 },
        { "67108864\n", 67108864 },
        { "18446744073709551615\n", UINT64_MAX },
        { "max\n", KERNFILE_MAX },
        { "max", KERNFILE_MAX },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t value = 1;
        assert_int_equal(kernfile_parse_value(good[i].text, &value), 0);
        assert_true(value == good[i].value);
    }
}

static void test_a_value_is_nothing_else(void **state)
{
    static const char *const bad[] = {
        "",
        "\n",
        " 1\n",
        "1 \n",
        "-1\n",
        "+1\n",
        "0x1\n",
        "1.5\n",
        "1e3\n",
        "1\n2\n",
        "1\n\n",
        "max\nmax\n",
        "Max\n",
        "ma\n",
        "max ",
        "maximum\n",
        "1\nx",
        "18446744073709551616\n",
        "99999999999999999999999999999999\n",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t value = 7;
        assert_int_equal(kernfile_parse_value(bad[i], &value), -EBADMSG);
        assert_int_equal(value, 7); /* untouched */
    }
}

/* ---- cgroup.events ---- */

static void test_events(void **state)
{
    struct kernfile_events events;

    (void)state;
    assert_int_equal(kernfile_parse_events("populated 1\nfrozen 0\n", &events), 0);
    assert_true(events.populated);
    assert_false(events.frozen);
    assert_int_equal(kernfile_parse_events("frozen 1\npopulated 0\n", &events), 0);
    assert_false(events.populated);
    assert_true(events.frozen);
    /* what a later kernel adds */
    assert_int_equal(kernfile_parse_events("new 5\npopulated 1\nfrozen 1\nmore 0\n", &events), 0);
    assert_true(events.frozen);
}

static void test_events_compare_whole_keys(void **state)
{
    static const char *const bad[] = {
        "",
        "populated 1\n",
        "frozen 1\n",
        "populated 1\nunfrozen 1\n",
        "populated 1\nfrozen_all 1\n",
        "populated 1\n frozen 1\n",
        "populated 1\nfrozen\t1\n",
        "populated 1\nfrozen 1 2\n",
        "populated 1\nfrozen 2\n",
        "populated 1\nfrozen \n",
        "populated 1\nfrozen",
        "populated 1\nfrozen yes\n",
        "populated -1\nfrozen 1\n",
    };
    struct kernfile_events events = { .populated = true, .frozen = true };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(kernfile_parse_events(bad[i], &events), -EBADMSG);
    assert_true(events.populated && events.frozen);
}

/* ---- flat keyed files ---- */

static void test_a_key_is_found_whole(void **state)
{
    static const char stat[] = "anon 4096\nfile 8192\nanon_thp 2097152\nkernel_stack 16384\n";
    uint64_t value = 7;

    (void)state;
    assert_int_equal(kernfile_parse_key(stat, "anon", &value), 0);
    assert_int_equal(value, 4096);
    assert_int_equal(kernfile_parse_key(stat, "anon_thp", &value), 0);
    assert_int_equal(value, 2097152);
    assert_int_equal(kernfile_parse_key(stat, "kernel_stack", &value), 0);
    assert_int_equal(value, 16384);
    assert_int_equal(kernfile_parse_key(stat, "stack", &value), -ENOENT);
    assert_int_equal(kernfile_parse_key(stat, "ano", &value), -ENOENT);
    assert_int_equal(kernfile_parse_key("", "anon", &value), -ENOENT);
    assert_int_equal(kernfile_parse_key("anon x\n", "anon", &value), -EBADMSG);
    assert_int_equal(value, 16384);
}

/* ---- /proc/meminfo ---- */

#define MEMINFO                                                                                    \
    "MemTotal:       16310572 kB\nMemFree:         1205268 kB\nMemAvailable:    9143264 kB\n"      \
    "SwapCached:            4 kB\nSwapTotal:       8388604 kB\nSwapFree:        8388600 kB\n"      \
    "HugePages_Total:       0\n"

static void test_meminfo_is_in_bytes(void **state)
{
    struct kernfile_meminfo info;

    (void)state;
    assert_int_equal(kernfile_parse_meminfo(MEMINFO, &info), 0);
    assert_int_equal(info.mem_total, 16310572ull << 10);
    assert_int_equal(info.mem_available, 9143264ull << 10);
    assert_int_equal(info.swap_total, 8388604ull << 10);
    assert_int_equal(info.swap_free, 8388600ull << 10);
}

static void test_meminfo_without_a_line_is_none(void **state)
{
    struct kernfile_meminfo info;
    char text[sizeof MEMINFO];

    (void)state;
    for (const char *line = MEMINFO; *line; line = strchr(line, '\n') + 1) {
        size_t end = (size_t)(strchr(line, '\n') + 1 - MEMINFO), start = (size_t)(line - MEMINFO);
        bool needed = strncmp(line, "MemTotal", 8) == 0 || strncmp(line, "MemAvail", 8) == 0 ||
                      strncmp(line, "SwapTotal", 9) == 0 || strncmp(line, "SwapFree", 8) == 0;
        memcpy(text, MEMINFO, start);
        strcpy(text + start, &MEMINFO[end]);
        assert_int_equal(kernfile_parse_meminfo(text, &info), needed ? -EBADMSG : 0);
    }
    assert_int_equal(kernfile_parse_meminfo("MemTotal: 99999999999999999999 kB\n" MEMINFO, &info),
                     -EBADMSG);
    assert_int_equal(kernfile_parse_meminfo("MemTotal: 18014398509481984 kB\n" MEMINFO, &info),
                     -EBADMSG);
}

static void test_this_machine_has_memory(void **state)
{
    struct kernfile_meminfo info;

    (void)state;
    assert_int_equal(kernfile_read_meminfo(&info), 0);
    assert_true(info.mem_total > info.mem_available);
    assert_true(info.swap_total >= info.swap_free);
}

/* ---- words ---- */

static void test_a_word_is_found_whole(void **state)
{
    (void)state;
    assert_true(kernfile_has_word("cpuset cpu io memory pids\n", "memory"));
    assert_true(kernfile_has_word("memory", "memory"));
    assert_true(kernfile_has_word("cpu memory\n", "memory"));
    assert_true(kernfile_has_word("  memory  \n", "memory"));
    assert_false(kernfile_has_word("cpu memory_recursiveprot\n", "memory"));
    assert_false(kernfile_has_word("inmemory\n", "memory"));
    assert_false(kernfile_has_word("mem ory\n", "memory"));
    assert_false(kernfile_has_word("", "memory"));
    assert_false(kernfile_has_word("\n", "memory"));
    assert_false(kernfile_has_word("memory\n", ""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_value_is_a_number_or_max),
        cmocka_unit_test(test_a_value_is_nothing_else),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_events_compare_whole_keys),
        cmocka_unit_test(test_a_key_is_found_whole),
        cmocka_unit_test(test_meminfo_is_in_bytes),
        cmocka_unit_test(test_meminfo_without_a_line_is_none),
        cmocka_unit_test(test_this_machine_has_memory),
        cmocka_unit_test(test_a_word_is_found_whole),
    };

    return cmocka_run_group_tests_name("kernfile", tests, NULL, NULL);
}
