#include "common/schema.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

struct freeze {
    char uid[37];
    char group[8];
    int reclaim;
    uint64_t generation;
    bool has_generation;
    uint64_t percent;
    bool force;
};

static const char *const reclaims[] = { "wait", "background", "off", NULL };

static const char *check_uid(const char *value)
{
    return strchr(value, '/') ? "is not a pod UID" : NULL;
}

static const struct schema_field fields[] = {
    { .name = "pod_uid",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct freeze, uid),
      .size = sizeof(((struct freeze *)0)->uid),
      .required = true,
      .check = check_uid },
    { .name = "group",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct freeze, group),
      .size = sizeof(((struct freeze *)0)->group) },
    { .name = "reclaim",
      .type = SCHEMA_ENUM,
      .offset = offsetof(struct freeze, reclaim),
      .names = reclaims },
    { .name = "generation",
      .type = SCHEMA_UINT,
      .offset = offsetof(struct freeze, generation),
      .present_offset = offsetof(struct freeze, has_generation) },
    { .name = "percent",
      .type = SCHEMA_UINT,
      .offset = offsetof(struct freeze, percent),
      .max = 100 },
    { .name = "force", .type = SCHEMA_BOOL, .offset = offsetof(struct freeze, force) },
};

static int decode(const char *text, struct freeze *out, struct error *error)
{
    *out = (struct freeze){ .reclaim = 1, .generation = 7 };
    *error = ERROR_INIT;

    /* In memory of its own, so that a sanitizer sees who reads past the end. */
    size_t len = strlen(text);
    char *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, text, len);
    int r = schema_decode_json(fields, ARRAY_SIZE(fields), copy, len, out, error);
    free(copy);
    return r;
}

static void test_fills_the_struct(void **state)
{
    struct freeze out;
    struct error error;

    (void)state;
    assert_int_equal(decode("{\"pod_uid\": \"ab\\u00e9\", \"reclaim\": \"off\", \"generation\": 0,"
                            " \"percent\": 100, \"force\": true, \"group\": \"1234567\"}",
                            &out, &error),
                     0);
    assert_string_equal(out.uid, "ab\xc3\xa9");
    assert_string_equal(out.group, "1234567");
    assert_int_equal(out.reclaim, 2);
    assert_int_equal(out.generation, 0);
    assert_true(out.has_generation);
    assert_int_equal(out.percent, 100);
    assert_true(out.force);
    assert_string_equal(error.msg, "");
}

static void test_keeps_defaults(void **state)
{
    struct freeze out;
    struct error error;

    (void)state;
    assert_int_equal(decode("{\"pod_uid\":\"\"}", &out, &error), 0);
    assert_int_equal(out.reclaim, 1);
    assert_int_equal(out.generation, 7);
    assert_false(out.has_generation);
}

static void test_limits(void **state)
{
    struct freeze out;
    struct error error;

    (void)state;
    assert_int_equal(decode("{\"pod_uid\":\"a\",\"generation\":9007199254740992}", &out, &error),
                     0);
    assert_true(out.generation == (uint64_t)1 << 53);
    assert_int_equal(decode("{\"pod_uid\":\"123456789012345678901234567890123456\"}", &out, &error),
                     0);
}

static void test_refuses_by_name(void **state)
{
    static const struct {
        const char *text;
        const char *sentence;
    } table[] = {
        { "{}", "field \"pod_uid\": is missing" },
        { "{\"pod_uid\":\"a\",\"generatoin\":1}", "field \"generatoin\": unknown" },
        { "{\"pod_uid\":\"a\",\"\":1}", "field \"\": unknown" },
        { "{\"pod_uid\":\"a\",\"a\\nb\\u001b[1m\":1}", "field \"a\\x0ab\\x1b[1m\": unknown" },
        { "{\"pod_uid\":\"a\",\"\\\\x0a\":1}", "field \"\\x5cx0a\": unknown" },
        { "{\"pod_uid\":\"a\",\"\xc3\xa9\":1}", "field \"\\xc3\\xa9\": unknown" },
        { "{\"pod_uid\":\"a/b\"}", "field \"pod_uid\": is not a pod UID" },
        { "{\"pod_uid\":1}", "field \"pod_uid\": must be a string" },
        { "{\"pod_uid\":null}", "field \"pod_uid\": must be a string" },
        { "{\"pod_uid\":[\"a\"]}", "field \"pod_uid\": must be a string" },
        { "{\"pod_uid\":\"1234567890123456789012345678901234567\"}",
          "field \"pod_uid\": must be at most 36 bytes long" },
        { "{\"pod_uid\":\"a\",\"group\":\"12345678\"}",
          "field \"group\": must be at most 7 bytes long" },
        { "{\"pod_uid\":\"a\",\"reclaim\":\"Wait\"}",
          "field \"reclaim\": must be one of wait, background, off" },
        { "{\"pod_uid\":\"a\",\"reclaim\":\"\"}",
          "field \"reclaim\": must be one of wait, background, off" },
        { "{\"pod_uid\":\"a\",\"reclaim\":0}",
          "field \"reclaim\": must be one of wait, background, off" },
        { "{\"pod_uid\":\"a\",\"percent\":101}",
          "field \"percent\": must be a whole number from 0 to 100" },
        { "{\"pod_uid\":\"a\",\"percent\":-1}",
          "field \"percent\": must be a whole number from 0 to 100" },
        { "{\"pod_uid\":\"a\",\"percent\":1.0}",
          "field \"percent\": must be a whole number from 0 to 100" },
        { "{\"pod_uid\":\"a\",\"percent\":\"1\"}",
          "field \"percent\": must be a whole number from 0 to 100" },
        { "{\"pod_uid\":\"a\",\"percent\":true}",
          "field \"percent\": must be a whole number from 0 to 100" },
        { "{\"pod_uid\":\"a\",\"generation\":9007199254740993}",
          "field \"generation\": must be a whole number from 0 to 9007199254740992" },
        { "{\"pod_uid\":\"a\",\"force\":1}", "field \"force\": must be true or false" },
        { "{\"pod_uid\":\"a\",\"force\":\"true\"}", "field \"force\": must be true or false" },
    };
    struct freeze out;
    struct error error;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_int_equal(decode(table[i].text, &out, &error), SCHEMA_E_FIELD);
        assert_string_equal(error.msg, table[i].sentence);
    }
}

static void test_refuses_what_is_no_object(void **state)
{
    static const char *const table[] = {
        "",
        " ",
        "null",
        "1",
        "\"a\"",
        "[]",
        "[{\"pod_uid\":\"a\"}]",
        "{",
        "{\"pod_uid\":\"a\"",
        "{\"pod_uid\":\"a\"}}",
        "{\"pod_uid\":\"a\"} x",
        "{\"pod_uid\":\"a\"}{\"pod_uid\":\"b\"}",
        "{\"pod_uid\":\"a\",}",
        "{pod_uid:\"a\"}",
        "{'pod_uid':'a'}",
        "{\"pod_uid\":\"a\",\"pod_uid\":\"b\"}",
        "{\"pod_uid\":\"a\\u0000b\"}",
        "{\"pod_uid\":\"\xff\"}",
        "{\"pod_uid\":\"\xed\xa0\x80\"}",
        "{\"pod_uid\":\"\\ud800\"}",
        "{\"pod_uid\":\"a\nb\"}",
        "{\"pod_uid\":\"a\",\"generation\":99999999999999999999}",
        "{\"pod_uid\":\"a\",\"generation\":1e999}",
        "{\"pod_uid\":\"a\",\"generation\":01}",
        "\xef\xbb\xbf{\"pod_uid\":\"a\"}",
        "{\"pod_uid\":\"a\",\"force\":TRUE}",
        "{\"pod_uid\":\"a\"/**/}",
        "\"",
        "\"\\",
    };
    struct freeze out;
    struct error error;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_int_equal(decode(table[i], &out, &error), SCHEMA_E_SYNTAX);
        assert_string_not_equal(error.msg, "");
    }
}

static void test_a_nul_byte_is_no_json(void **state)
{
    static const char text[] = "{\"pod_uid\":\"a\0b\"}";
    struct freeze out = { 0 };
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(
        schema_decode_json(fields, ARRAY_SIZE(fields), text, sizeof(text) - 1, &out, &error),
        SCHEMA_E_SYNTAX);
}

/* A value of `depth` nested arrays, itself in an object. */
static int decode_nested(unsigned depth, struct error *error)
{
    struct freeze out;
    char text[256] = "{\"group\":";
    size_t len = strlen(text);

    for (unsigned i = 0; i < depth; i++)
        text[len++] = '[';
    for (unsigned i = 0; i < depth; i++)
        text[len++] = ']';
    text[len++] = '}';
    text[len] = '\0';
    return decode(text, &out, error);
}

static void test_depth(void **state)
{
    struct freeze out;
    struct error error;

    (void)state;
    assert_int_equal(decode_nested(SCHEMA_MAX_DEPTH - 1, &error), SCHEMA_E_FIELD);
    assert_int_equal(decode_nested(SCHEMA_MAX_DEPTH, &error), SCHEMA_E_SYNTAX);
    assert_string_equal(error.msg, "JSON is nested deeper than 8");
    /* What stands in a string is no nesting, whatever is escaped there. */
    assert_int_equal(decode("{\"pod_uid\":\"[[[[[[[[[[[\\\"[[[[[[[\\\\\"}", &out, &error), 0);
}

static void test_a_long_name_is_cut(void **state)
{
    struct freeze out;
    struct error error;
    char text[1024] = "{\"";

    (void)state;
    memset(text + 2, 'n', 900);
    strcpy(text + 902, "\":1}");
    assert_int_equal(decode(text, &out, &error), SCHEMA_E_FIELD);
    assert_in_range(strlen(error.msg), 1, 100);
    assert_non_null(strstr(error.msg, "nnn...\": unknown"));

    memset(text + 2, '\x7f', 900);
    assert_int_equal(decode(text, &out, &error), SCHEMA_E_FIELD);
    assert_true(strlen(error.msg) < ERROR_MSG_SIZE);
}

static void test_nobody_reads_the_sentence(void **state)
{
    struct freeze out = { 0 };

    (void)state;
    assert_int_equal(schema_decode_json(fields, ARRAY_SIZE(fields), "{}", 2, &out, NULL),
                     SCHEMA_E_FIELD);
    assert_int_equal(schema_decode_pair(fields, ARRAY_SIZE(fields), "x", "y", &out, NULL),
                     SCHEMA_E_FIELD);
}

static void test_without_fields(void **state)
{
    (void)state;
    assert_int_equal(schema_decode_json(NULL, 0, "{}", 2, NULL, NULL), 0);
    assert_int_equal(schema_decode_json(NULL, 0, "{\"a\":1}", 7, NULL, NULL), SCHEMA_E_FIELD);
    assert_int_equal(schema_find(NULL, 0, "a"), -1);
}

/* ---- query ---- */

static int pair(const char *name, const char *value, struct freeze *out, struct error *error)
{
    *error = ERROR_INIT;
    return schema_decode_pair(fields, ARRAY_SIZE(fields), name, value, out, error);
}

static void test_pairs(void **state)
{
    struct freeze out = { 0 };
    struct error error;

    (void)state;
    assert_int_equal(pair("pod_uid", "abc", &out, &error), 0);
    assert_int_equal(pair("reclaim", "background", &out, &error), 0);
    assert_int_equal(pair("generation", "9007199254740992", &out, &error), 0);
    assert_int_equal(pair("force", NULL, &out, &error), 0);
    assert_string_equal(out.uid, "abc");
    assert_int_equal(out.reclaim, 1);
    assert_true(out.generation == (uint64_t)1 << 53);
    assert_true(out.has_generation);
    assert_true(out.force);
    assert_int_equal(pair("force", "false", &out, &error), 0);
    assert_false(out.force);
    assert_int_equal(pair("group", "", &out, &error), 0);
    assert_int_equal(pair("percent", "007", &out, &error), 0);
    assert_int_equal(out.percent, 7);
}

static void test_pairs_refused(void **state)
{
    static const struct {
        const char *name, *value, *sentence;
    } table[] = {
        { "x", "1", "field \"x\": unknown" },
        { "x", NULL, "field \"x\": unknown" },
        { "pod_uid", NULL, "field \"pod_uid\": has no value" },
        { "percent", NULL, "field \"percent\": has no value" },
        { "percent", "", "field \"percent\": must be a whole number from 0 to 100" },
        { "percent", "-1", "field \"percent\": must be a whole number from 0 to 100" },
        { "percent", "+1", "field \"percent\": must be a whole number from 0 to 100" },
        { "percent", " 1", "field \"percent\": must be a whole number from 0 to 100" },
        { "percent", "1 ", "field \"percent\": must be a whole number from 0 to 100" },
        { "percent", "0x1", "field \"percent\": must be a whole number from 0 to 100" },
        { "percent", "101", "field \"percent\": must be a whole number from 0 to 100" },
        { "percent", "18446744073709551616",
          "field \"percent\": must be a whole number from 0 to 100" },
        { "force", "", "field \"force\": must be true or false" },
        { "force", "1", "field \"force\": must be true or false" },
        { "force", "TRUE", "field \"force\": must be true or false" },
        { "reclaim", "x", "field \"reclaim\": must be one of wait, background, off" },
        { "group", "\xff", "field \"group\": is not UTF-8" },
        { "group", "12345678", "field \"group\": must be at most 7 bytes long" },
        { "pod_uid", "../x", "field \"pod_uid\": is not a pod UID" },
    };
    struct freeze out = { 0 };
    struct error error;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
        assert_int_equal(pair(table[i].name, table[i].value, &out, &error), SCHEMA_E_FIELD);
        assert_string_equal(error.msg, table[i].sentence);
    }
    assert_false(out.has_generation);
}

static void test_required(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(schema_check_required(fields, ARRAY_SIZE(fields), 1, &error), 0);
    assert_int_equal(schema_check_required(fields, ARRAY_SIZE(fields), 2, &error), SCHEMA_E_FIELD);
    assert_string_equal(error.msg, "field \"pod_uid\": is missing");
    assert_int_equal(schema_find(fields, ARRAY_SIZE(fields), "generation"), 3);
    assert_int_equal(schema_find(fields, ARRAY_SIZE(fields), "generatio"), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fills_the_struct),
        cmocka_unit_test(test_keeps_defaults),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_refuses_by_name),
        cmocka_unit_test(test_refuses_what_is_no_object),
        cmocka_unit_test(test_a_nul_byte_is_no_json),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_a_long_name_is_cut),
        cmocka_unit_test(test_nobody_reads_the_sentence),
        cmocka_unit_test(test_without_fields),
        cmocka_unit_test(test_pairs),
        cmocka_unit_test(test_pairs_refused),
        cmocka_unit_test(test_required),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
