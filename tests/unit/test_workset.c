#include "agent/workset.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

static uint64_t size; /* of a page */

static int setup(void **state)
{
    (void)state;
    size = (uint64_t)sysconf(_SC_PAGESIZE);
    return 0;
}

static void add(struct workset *set, int process, uint64_t first, uint64_t last)
{
    assert_true(workset_add(set, process, first * size, last * size));
}

/* The next run, in pages. */
static void expect_run(const struct workset *set, int process, bool inside, uint64_t at,
                       uint64_t end, uint64_t first, uint64_t last)
{
    uint64_t start = 0, stop = 0;

    assert_true(workset_run(set, process, inside, at * size, end * size, &start, &stop));
    assert_int_equal(start, first * size);
    assert_int_equal(stop, last * size);
}

static void expect_none(const struct workset *set, int process, bool inside, uint64_t at,
                        uint64_t end)
{
    uint64_t start, stop;

    assert_false(workset_run(set, process, inside, at * size, end * size, &start, &stop));
}

static void test_runs_are_exact(void **state)
{
    struct workset set = { 0 };
    int process = workset_add_process(&set, 7, 100);

    (void)state;
    add(&set, process, 1000, 1003);
    add(&set, process, 10, 11);
    add(&set, process, 63, 65); /* over the border of a block */
    add(&set, process, 128, 320);
    workset_seal(&set);
    expect_run(&set, process, true, 0, 5000, 10, 11);
    expect_run(&set, process, true, 11, 5000, 63, 65);
    expect_run(&set, process, true, 64, 5000, 64, 65);
    expect_run(&set, process, true, 65, 5000, 128, 320);
    expect_run(&set, process, true, 200, 300, 200, 300);
    expect_run(&set, process, true, 320, 5000, 1000, 1003);
    expect_none(&set, process, true, 1003, 5000);
    expect_run(&set, process, false, 0, 5000, 0, 10);
    expect_run(&set, process, false, 10, 5000, 11, 63);
    expect_run(&set, process, false, 128, 5000, 320, 1000);
    expect_run(&set, process, false, 1000, 1 << 30, 1003, 1 << 30);
    expect_none(&set, process, false, 128, 320);
    workset_clear(&set);
}

static void test_processes_are_apart(void **state)
{
    struct workset set = { 0 };
    int first = workset_add_process(&set, 7, 100), second = workset_add_process(&set, 8, 100);

    (void)state;
    add(&set, second, 5, 6);
    add(&set, first, 1, 2);
    workset_seal(&set);
    assert_int_equal(workset_add_process(&set, 7, 100), first);
    assert_int_equal(workset_find(&set, 8, 100), second);
    assert_int_equal(workset_find(&set, 8, 101), -1); /* another process with that PID */
    expect_run(&set, first, true, 0, 100, 1, 2);
    expect_none(&set, first, true, 2, 100);
    expect_run(&set, second, true, 0, 100, 5, 6);
    workset_clear(&set);
}

static void test_an_unknown_process_has_nothing_in_it(void **state)
{
    struct workset set = { 0 };

    (void)state;
    expect_none(&set, -1, true, 0, 100);
    expect_run(&set, -1, false, 3, 100, 3, 100);
    expect_none(&set, -1, false, 100, 100);
}

static void test_pages_that_were_added_apart_are_one_block(void **state)
{
    struct workset set = { 0 };
    int process = workset_add_process(&set, 7, 100);

    (void)state;
    add(&set, process, 1, 2);
    add(&set, process, 1000, 1001);
    add(&set, process, 2, 3);
    workset_seal(&set);
    assert_int_equal(set.n_blocks, 2);
    expect_run(&set, process, true, 0, 100, 1, 3);
    workset_clear(&set);
}

static void test_a_set_is_bounded(void **state)
{
    struct workset set = { 0 };
    int process = workset_add_process(&set, 1, 1);

    (void)state;
    for (unsigned i = 0; i < WORKSET_BLOCKS_MAX + 1; i++)
        add(&set, process, i * 1000, i * 1000 + 1);
    assert_int_equal(set.n_blocks, WORKSET_BLOCKS_MAX);
    for (int i = 2; i <= WORKSET_PROCESSES_MAX; i++)
        assert_int_equal(workset_add_process(&set, i, 1), i - 1);
    assert_int_equal(workset_add_process(&set, WORKSET_PROCESSES_MAX + 1, 1), -1);
    workset_seal(&set);
    expect_run(&set, process, true, 0, 10, 0, 1);
    workset_clear(&set);
}

static struct workset one_page(uint64_t page)
{
    struct workset set = { 0 };

    add(&set, workset_add_process(&set, 1, 1), page, page + 1);
    workset_seal(&set);
    return set;
}

static void put(struct workset_table *table, const char *uid, uint64_t page)
{
    struct workset set = one_page(page);

    workset_table_put(table, uid, &set);
    assert_null(set.blocks);
}

static void test_the_table_forgets_the_oldest(void **state)
{
    struct workset_table *table = NULL;

    (void)state;
    assert_int_equal(workset_table_open(&table, 2, NULL), 0);
    put(table, "a", 1);
    put(table, "b", 2);
    put(table, "a", 3);
    put(table, "c", 4);
    assert_null(workset_table_get(table, "b"));
    expect_run(workset_table_get(table, "a"), 0, true, 0, 100, 3, 4);
    expect_run(workset_table_get(table, "c"), 0, true, 0, 100, 4, 5);
    workset_table_forget(table, "a");
    workset_table_forget(table, "a");
    assert_null(workset_table_get(table, "a"));
    assert_null(workset_table_close(table));
    assert_null(workset_table_close(NULL));
}

static void test_a_copy_stands_alone(void **state)
{
    struct workset set = one_page(9), copy;

    (void)state;
    assert_true(workset_copy(&copy, &set));
    workset_clear(&set);
    assert_int_equal(workset_find(&copy, 1, 1), 0);
    expect_run(&copy, 0, true, 0, 100, 9, 10);
    workset_clear(&copy);

    assert_true(workset_copy(&copy, &set)); /* empty */
    expect_none(&copy, 0, true, 0, 100);
    workset_clear(&copy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_are_exact),
        cmocka_unit_test(test_processes_are_apart),
        cmocka_unit_test(test_an_unknown_process_has_nothing_in_it),
        cmocka_unit_test(test_pages_that_were_added_apart_are_one_block),
        cmocka_unit_test(test_a_set_is_bounded),
        cmocka_unit_test(test_the_table_forgets_the_oldest),
        cmocka_unit_test(test_a_copy_stands_alone),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
