#include "common/error.h"

#include <stdarg.h>
#include <stdbool.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/utf8.h"

#define ROOM (ERROR_MSG_SIZE - 1)

static void test_set_appends_the_reason(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(error_set(&error, EACCES, "write %s/%s", "a", "b"), -EACCES);
    assert_int_equal(error.err, EACCES);
    assert_string_equal(error.msg, "write a/b: Permission denied");
}

static void test_set_without_errno_is_a_failure(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(error_set(&error, 0, "odd"), -EIO);
    assert_int_equal(error.err, 0);
    assert_string_equal(error.msg, "odd");
}

static void test_set_with_an_unknown_errno(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(error_set(&error, 9999, "odd"), -9999);
    assert_string_equal(error.msg, "odd: Unknown error 9999");
}

static void test_outcome(void **state)
{
    struct error error = { .err = EIO };

    (void)state;
    assert_int_equal(error_outcome(&error, 7, "pod %d", 3), 7);
    assert_int_equal(error.err, 0);
    assert_string_equal(error.msg, "pod 3");

    assert_int_equal(error_outcome(&error, -EINVAL, "bad"), -EINVAL);
    assert_int_equal(error.err, EINVAL);
    assert_string_equal(error.msg, "bad");
}

static void test_wrap_grows_at_the_front(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    int r = error_set(&error, ENOENT, "open x");
    r = error_wrap(&error, r, "record %s", "1");
    r = error_wrap(&error, r, "freeze");
    assert_int_equal(r, -ENOENT);
    assert_int_equal(error.err, ENOENT);
    assert_string_equal(error.msg, "freeze: record 1: open x: No such file or directory");
}

static void test_wrap_of_success_changes_nothing(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(error_wrap(&error, 0, "freeze"), 0);
    assert_string_equal(error.msg, "");
}

static void test_wrap_with_its_own_sentence(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    error_outcome(&error, 1, "a");
    error_wrap(&error, 1, "%s", error.msg);
    assert_string_equal(error.msg, "a: a");
}

static void test_null_is_nobody_who_reads(void **state)
{
    (void)state;
    assert_int_equal(error_set(NULL, EIO, "x"), -EIO);
    assert_int_equal(error_set(NULL, 0, "x"), -EIO);
    assert_int_equal(error_outcome(NULL, 4, "x"), 4);
    assert_int_equal(error_wrap(NULL, -EBUSY, "x"), -EBUSY);
}

static const char *repeat(char *buffer, size_t n)
{
    memset(buffer, 'x', n);
    buffer[n] = '\0';
    return buffer;
}

static void test_a_sentence_at_the_limit_is_whole(void **state)
{
    struct error error = ERROR_INIT;
    char text[ERROR_MSG_SIZE + 8];

    (void)state;
    error_outcome(&error, 1, "%s", repeat(text, ROOM));
    assert_string_equal(error.msg, text);

    /* ": Permission denied" is 19 bytes */
    error_set(&error, EACCES, "%s", repeat(text, ROOM - 19));
    assert_memory_equal(error.msg, text, ROOM - 19);
    assert_string_equal(error.msg + ROOM - 19, ": Permission denied");
}

static void test_a_long_sentence_keeps_its_reason(void **state)
{
    struct error error = ERROR_INIT;
    char text[ERROR_MSG_SIZE + 8];

    (void)state;
    error_set(&error, EACCES, "%s", repeat(text, ROOM - 18));
    assert_int_equal(strlen(error.msg), ROOM);
    assert_string_equal(error.msg + ROOM - 20, "x: Permission denied");
}

static void test_a_long_wrap_keeps_the_front(void **state)
{
    struct error error = ERROR_INIT;
    char text[2 * ERROR_MSG_SIZE];

    (void)state;
    error_outcome(&error, 1, "%s", repeat(text, ROOM));
    error_wrap(&error, 1, "front");
    assert_int_equal(strlen(error.msg), ROOM);
    assert_memory_equal(error.msg, "front: xxx", 10);

    error_wrap(&error, 1, "%s", repeat(text, ERROR_MSG_SIZE + 10));
    assert_int_equal(strlen(error.msg), ROOM);
    assert_string_equal(error.msg + ROOM - 3, "x: ");
}

static void test_a_cut_leaves_no_half_character(void **state)
{
    struct error error = ERROR_INIT;
    char text[ERROR_MSG_SIZE + 8];

    (void)state;
    repeat(text, ROOM - 1);
    strcpy(text + ROOM - 1, "é"); /* its second byte is one too many */
    error_outcome(&error, 1, "%s", text);
    assert_int_equal(strlen(error.msg), ROOM - 1);
}

static void test_utf8_character(void **state)
{
    static const struct {
        const char *bytes;
        size_t n;
    } cases[] = {
        { "a", 1 },
        { "\x7f", 1 },
        { "\x80", 0 },
        { "\xc1\xbf", 0 }, /* overlong */
        { "\xc2\x80", 2 },
        { "\xdf\xbf", 2 },
        { "\xdf", 0 },
        { "\xdf\xc0", 0 },
        { "\xe0\x9f\xbf", 0 }, /* overlong */
        { "\xe0\xa0\x80", 3 },
        { "\xed\x9f\xbf", 3 },
        { "\xed\xa0\x80", 0 }, /* a surrogate */
        { "\xef\xbf\xbd", 3 },
        { "\xe2\x80", 0 },
        { "\xe2\x80\x41", 0 },
        { "\xf0\x8f\xbf\xbf", 0 }, /* overlong */
        { "\xf0\x90\x80\x80", 4 },
        { "\xf4\x8f\xbf\xbf", 4 },
        { "\xf4\x90\x80\x80", 0 }, /* beyond U+10FFFF */
        { "\xf0\x9f\x98", 0 },
        { "\xf5\x80\x80\x80", 0 },
        { "\xff", 0 },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(utf8_character(cases[i].bytes, strlen(cases[i].bytes)), cases[i].n);
    /* What follows the end is not looked at. */
    assert_int_equal(utf8_character("\xc3\xa9", 1), 0);
}

static void test_utf8_cut(void **state)
{
    (void)state;
    assert_int_equal(utf8_cut("abcd", 3), 3);
    assert_int_equal(utf8_cut("a\xc3\xa9z", 2), 1);
    assert_int_equal(utf8_cut("a\xc3\xa9z", 3), 3);
    assert_int_equal(utf8_cut("\xf0\x9f\x98\x80z", 3), 0);
    assert_int_equal(utf8_cut("\xf0\x9f\x98\x80z", 4), 4);
    /* Bytes that are no text are cut anywhere. */
    assert_int_equal(utf8_cut("\x80\x80\x80\x80\x80\x80", 5), 5);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_appends_the_reason),
        cmocka_unit_test(test_set_without_errno_is_a_failure),
        cmocka_unit_test(test_set_with_an_unknown_errno),
        cmocka_unit_test(test_outcome),
        cmocka_unit_test(test_wrap_grows_at_the_front),
        cmocka_unit_test(test_wrap_of_success_changes_nothing),
        cmocka_unit_test(test_wrap_with_its_own_sentence),
        cmocka_unit_test(test_null_is_nobody_who_reads),
        cmocka_unit_test(test_a_sentence_at_the_limit_is_whole),
        cmocka_unit_test(test_a_long_sentence_keeps_its_reason),
        cmocka_unit_test(test_a_long_wrap_keeps_the_front),
        cmocka_unit_test(test_a_cut_leaves_no_half_character),
        cmocka_unit_test(test_utf8_character),
        cmocka_unit_test(test_utf8_cut),
    };

    return cmocka_run_group_tests_name("error", tests, NULL, NULL);
}
