#include "agent/history.h"

#include <stdarg.h>
#include <stddef.h>

#include <setjmp.h>

#include <cmocka.h>

#define MINUTE (60 * USEC_PER_SEC)

static struct history *history;

static int setup(void **state)
{
    (void)state;
    return history_open(&history, 3, NULL);
}

static int teardown(void **state)
{
    (void)state;
    history = history_close(history);
    return 0;
}

static void test_the_highest_generation_is_remembered(void **state)
{
    (void)state;
    assert_int_equal(history_generation(history, "a"), 0);
    history_see_generation(history, "a", 5);
    history_see_generation(history, "a", 3);
    assert_int_equal(history_generation(history, "a"), 5);
    history_see_generation(history, "a", 6);
    history_see_generation(history, "a", 0);
    assert_int_equal(history_generation(history, "a"), 6);
    assert_int_equal(history_generation(history, "b"), 0);
    assert_null(history_close(NULL));
}

static void test_who_was_not_heard_of_for_longest_falls_out(void **state)
{
    (void)state;
    history_see_generation(history, "a", 1);
    history_see_generation(history, "b", 2);
    history_see_generation(history, "c", 3);
    history_see_generation(history, "a", 1); /* heard of again */
    history_see_generation(history, "d", 4);
    assert_int_equal(history_generation(history, "a"), 1);
    assert_int_equal(history_generation(history, "b"), 0);
    assert_int_equal(history_generation(history, "c"), 3);
    assert_int_equal(history_generation(history, "d"), 4);
}

/* It takes the place of another, not its past. */
static void test_a_newcomer_begins_at_nothing(void **state)
{
    (void)state;
    history_see_generation(history, "a", 100);
    history_count_wake(history, "a", MINUTE);
    history_see_generation(history, "b", 2);
    history_see_generation(history, "c", 3);
    history_see_generation(history, "d", 4);
    assert_int_equal(history_generation(history, "d"), 4);
    assert_int_equal(history_wakes(history, "d", MINUTE), 0);
}

static void test_many_pods_and_never_more_than_there_is_room_for(void **state)
{
    char uid[16];

    (void)state;
    for (unsigned i = 1; i <= 1000; i++) {
        snprintf(uid, sizeof uid, "pod-%u", i);
        history_see_generation(history, uid, i);
    }
    assert_int_equal(history_generation(history, "pod-1000"), 1000);
    assert_int_equal(history_generation(history, "pod-998"), 998);
    assert_int_equal(history_generation(history, "pod-997"), 0);
}

static void test_wakes_are_counted_within_a_minute(void **state)
{
    const uint64_t start = 7 * MINUTE;

    (void)state;
    assert_int_equal(history_wakes(history, "a", start), 0);
    for (unsigned i = 0; i < 3; i++)
        history_count_wake(history, "a", start + i);
    assert_int_equal(history_wakes(history, "a", start + MINUTE - 1), 3);
    assert_int_equal(history_wakes(history, "a", start + MINUTE), 0);
    assert_int_equal(history_wakes(history, "b", start), 0);
    history_count_wake(history, "a", start + MINUTE);
    assert_int_equal(history_wakes(history, "a", start + MINUTE), 1);
}

static void test_wakes_and_generations_do_not_disturb_each_other(void **state)
{
    (void)state;
    history_count_wake(history, "a", MINUTE);
    history_see_generation(history, "a", 5);
    history_count_wake(history, "a", MINUTE);
    assert_int_equal(history_wakes(history, "a", MINUTE), 2);
    assert_int_equal(history_generation(history, "a"), 5);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_highest_generation_is_remembered),
        TEST(test_who_was_not_heard_of_for_longest_falls_out),
        TEST(test_a_newcomer_begins_at_nothing),
        TEST(test_many_pods_and_never_more_than_there_is_room_for),
        TEST(test_wakes_are_counted_within_a_minute),
        TEST(test_wakes_and_generations_do_not_disturb_each_other),
    };

    return cmocka_run_group_tests_name("history", tests, NULL, NULL);
}
