#include "agent/events.h"

#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define CAPACITY 4

static struct events *events;

static int setup(void **state)
{
    (void)state;
    return events_open(&events, CAPACITY, NULL);
}

static int teardown(void **state)
{
    (void)state;
    events = events_close(events);
    return 0;
}

static void emit(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        events_emit(events, json_pack("{ss si}", "type", "frozen", "n", (int)i));
}

struct next {
    bool there;
    const char *line;
    uint64_t seq, missed;
};

static struct next next_after(uint64_t cursor)
{
    struct next next = { .missed = 99 };

    next.there = events_next(events, cursor, &next.line, &next.seq, &next.missed);
    return next;
}

/* ---- tests ---- */

static void test_an_empty_ring_has_nothing(void **state)
{
    (void)state;
    assert_int_equal(events_last(events), 0);
    assert_false(next_after(0).there);
    assert_int_equal(strlen(events_epoch(events)), 32);
    assert_null(events_close(NULL));
}

static void test_each_run_has_an_epoch_of_its_own(void **state)
{
    struct events *other = NULL;

    (void)state;
    assert_int_equal(events_open(&other, CAPACITY, NULL), 0);
    assert_string_not_equal(events_epoch(events), events_epoch(other));
    events_close(other);
}

static void test_an_event_is_a_line_with_number_and_time_first(void **state)
{
    (void)state;
    emit(1);
    struct next next = next_after(0);
    assert_true(next.there);
    assert_int_equal(next.seq, 1);
    assert_int_equal(next.missed, 0);
    assert_int_equal(strncmp(next.line, "{\"seq\":1,\"time\":\"2", 18), 0);
    assert_ptr_equal(strchr(next.line, '\n'), next.line + strlen(next.line) - 1);
    json_t *json = json_loads(next.line, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(json, "type")), "frozen");
    json_decref(json);
    assert_false(next_after(1).there);
}

/* What an event brings cannot pass for its number. */
static void test_number_and_time_are_the_rings(void **state)
{
    (void)state;
    events_emit(events, json_pack("{si ss}", "seq", 77, "time", "never"));
    assert_int_equal(strncmp(next_after(0).line, "{\"seq\":1,\"time\":\"2", 18), 0);
}

static void test_a_reader_follows_in_order(void **state)
{
    uint64_t cursor = 0;

    (void)state;
    emit(CAPACITY);
    for (unsigned i = 1; i <= CAPACITY; i++) {
        struct next next = next_after(cursor);
        assert_true(next.there);
        assert_int_equal(next.seq, i);
        assert_int_equal(next.missed, 0);
        cursor = next.seq;
    }
    assert_false(next_after(cursor).there);
}

static void test_a_slow_reader_is_told_how_many_are_lost(void **state)
{
    (void)state;
    emit(CAPACITY + 3);
    assert_int_equal(events_last(events), CAPACITY + 3);
    struct next next = next_after(0);
    assert_true(next.there);
    assert_int_equal(next.seq, 4);
    assert_int_equal(next.missed, 3);
    next = next_after(2);
    assert_int_equal(next.missed, 1);
    next = next_after(3);
    assert_int_equal(next.missed, 0);
}

static void test_a_cursor_from_the_future_has_nothing(void **state)
{
    (void)state;
    emit(2);
    assert_false(next_after(2).there);
    assert_false(next_after(1000).there);
}

static void test_an_event_that_is_none_is_lost_and_told_of(void **state)
{
    (void)state;
    emit(1);
    events_emit(events, NULL); /* as when there was no memory for it */
    emit(1);
    struct next next = next_after(1);
    assert_true(next.there);
    assert_int_equal(next.seq, 3);
    assert_int_equal(next.missed, 1);
}

/* ---- listeners ---- */

struct counter {
    struct events_listener listener;
    unsigned heard;
    bool leaves;
};

static void on_event(struct events_listener *listener)
{
    struct counter *counter = container_of(listener, struct counter, listener);

    counter->heard++;
    if (counter->leaves)
        events_unlisten(listener);
}

static void test_listeners_hear_each_event_until_they_leave(void **state)
{
    struct counter counters[3] = { 0 };

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        counters[i].listener.on_event = on_event;
        events_listen(events, &counters[i].listener);
    }
    counters[1].leaves = true; /* while it is called */
    emit(2);
    assert_int_equal(counters[0].heard, 2);
    assert_int_equal(counters[1].heard, 1);
    assert_int_equal(counters[2].heard, 2);
    for (unsigned i = 0; i < 3; i++) {
        events_unlisten(&counters[i].listener);
        events_unlisten(&counters[i].listener); /* harmless */
    }
    emit(1);
    assert_int_equal(counters[0].heard, 2);
}

/* ---- time ---- */

static void test_times_are_utc_with_milliseconds(void **state)
{
    static const struct {
        uint64_t usec;
        const char *text;
    } times[] = {
        { 0, "1970-01-01T00:00:00.000Z" },
        { 1767323045678999, "2026-01-02T03:04:05.678Z" },
        { 951782400000000, "2000-02-29T00:00:00.000Z" },
    };
    char text[EVENTS_TIME_SIZE];

    (void)state;
    setenv("TZ", "Asia/Tokyo", 1);
    for (size_t i = 0; i < ARRAY_SIZE(times); i++) {
        events_format_time(times[i].usec, text);
        assert_string_equal(text, times[i].text);
    }
    assert_true(events_now_usec() > 1767323045678999);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_an_empty_ring_has_nothing),
        TEST(test_each_run_has_an_epoch_of_its_own),
        TEST(test_an_event_is_a_line_with_number_and_time_first),
        TEST(test_number_and_time_are_the_rings),
        TEST(test_a_reader_follows_in_order),
        TEST(test_a_slow_reader_is_told_how_many_are_lost),
        TEST(test_a_cursor_from_the_future_has_nothing),
        TEST(test_an_event_that_is_none_is_lost_and_told_of),
        TEST(test_listeners_hear_each_event_until_they_leave),
        TEST(test_times_are_utc_with_milliseconds),
    };

    return cmocka_run_group_tests_name("events", tests, NULL, NULL);
}
