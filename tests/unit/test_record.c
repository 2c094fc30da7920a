#include "agent/record.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include <setjmp.h>

#include <cmocka.h>

#define UID "5b0c9a7e-12f4-4c1d-9e3b-000000000001"

/* ---- records ---- */

static void add_group(struct record_container *container, const char *path, uint64_t inode,
                      const char *swap_max)
{
    struct record_group *group = record_add_group(container);

    assert_non_null(group);
    strcpy(group->path, path);
    group->inode = inode;
    strcpy(group->swap_max, swap_max);
}

static struct record_container *add_container(struct record *record, const char *id)
{
    struct record_container *container = record_add_container(record);

    assert_non_null(container);
    strcpy(container->id, id);
    assert_true(asprintf(&container->cgroup, "kubepods/pod%s/%s", UID, id) > 0);
    return container;
}

static struct record make_record(void)
{
    struct record record = { .pod_uid = UID,
                             .boot_id = "0c1f0a3e-5f5e-4f65-8b6e-9a4e8a3c1f22",
                             .group = "team-a/blog",
                             .generation = (uint64_t)1 << 53,
                             .reclaim = RECLAIM_BACKGROUND,
                             .reclaim_after = 90,
                             .wake_on = WAKE_ON_DATA,
                             .frozen_at_usec = 1767323045678901 };
    struct record_container *container = add_container(&record, "c1");

    container->memory_before = (uint64_t)200 << 20;
    add_group(container, "", UINT64_MAX, "0");
    add_group(container, "container", 77, "67108864");
    add_group(container, "container/init.scope", 78, "max");
    container = add_container(&record, "c2");
    add_group(container, "", 79, "");
    return record;
}

static void assert_same(const struct record *a, const struct record *b)
{
    assert_string_equal(a->pod_uid, b->pod_uid);
    assert_string_equal(a->boot_id, b->boot_id);
    assert_string_equal(a->group, b->group);
    assert_int_equal(a->generation, b->generation);
    assert_int_equal(a->reclaim, b->reclaim);
    assert_int_equal(a->reclaim_after, b->reclaim_after);
    assert_int_equal(a->wake_on, b->wake_on);
    assert_int_equal(a->frozen_at_usec, b->frozen_at_usec);
    assert_int_equal(a->n_containers, b->n_containers);
    for (unsigned i = 0; i < a->n_containers; i++) {
        const struct record_container *x = &a->containers[i], *y = &b->containers[i];
        assert_string_equal(x->id, y->id);
        assert_string_equal(x->cgroup, y->cgroup);
        assert_int_equal(x->memory_before, y->memory_before);
        assert_int_equal(x->n_groups, y->n_groups);
        assert_memory_equal(x->groups, y->groups, x->n_groups * sizeof x->groups[0]);
    }
}

static void assert_round_trip(const struct record *record)
{
    struct record copy;
    size_t len = 0;
    char *text = NULL;

    assert_int_equal(record_encode(record, &text, &len, NULL), 0);
    assert_int_equal(strlen(text), len);
    assert_int_equal(record_decode(text, len, &copy, NULL), 0);
    assert_same(record, &copy);
    record_clear(&copy);
    free(text);
}

/* ---- text ---- */

/* As the checksum is documented: FNV-1a, 64 bits, of the line without its end. */
static char *frame(const char *json)
{
    uint64_t hash = 0xcbf29ce484222325;
    char *text = NULL;

    for (const char *p = json; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 0x100000001b3;
    assert_true(asprintf(&text, "%s\n%016" PRIx64 "\n", json, hash) > 0);
    return text;
}

static int decode(const char *json)
{
    struct error error = ERROR_INIT;
    struct record record;
    char *text = frame(json);
    int r = record_decode(text, strlen(text), &record, &error);

    if (r == 0)
        record_clear(&record);
    else
        assert_true(*error.msg);
    free(text);
    return r;
}

#define HEAD                                                                                       \
    "\"version\":1,\"pod_uid\":\"" UID "\",\"boot_id\":\"b\",\"group\":\"\",\"generation\":0,"     \
    "\"reclaim\":\"wait\",\"reclaim_after\":0,\"wake_on\":\"none\",\"frozen_at_usec\":1,"
#define GROUPS(groups)                                                                             \
    "{" HEAD "\"containers\":[{\"id\":\"c\",\"cgroup\":\"kubepods/c\",\"memory_before\":0,"        \
    "\"groups\":[" groups "]}]}"
#define GROUP(path, swap_max) "{\"path\":\"" path "\",\"inode\":1,\"swap_max\":\"" swap_max "\"}"

/* ---- tests ---- */

static void test_a_record_comes_back_as_it_was(void **state)
{
    struct record record = make_record();

    (void)state;
    assert_round_trip(&record);
    record_clear(&record);
    assert_null(record.containers);
    assert_int_equal(record.n_containers, 0);
}

/* A container may name its groups as it likes; what we write we must be able to read. */
static void test_odd_names_come_back_as_they_were(void **state)
{
    static const char *const names[] = { "a..b",      "..a",      "a..",          "...",
                                         "a b\"\\\t", "\x01\x7f", "gr\xc3\xb6n",  "a/b..c/d",
                                         "-",         "%s%n",     "{\"path\":1}", "." };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct record record = make_record();
        add_group(&record.containers[0], names[i], 5, "max");
        assert_round_trip(&record);
        record_clear(&record);
    }
}

/* Else the group would be missing from the record, and nobody would thaw it after a crash. */
static void test_what_cannot_be_written_is_no_record(void **state)
{
    char *text = NULL;
    size_t len;

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        struct record record = make_record();
        char *where[] = { record.containers[0].groups[1].path, record.containers[1].id,
                          record.containers[1].cgroup };
        strcpy(where[i], "\xff");
        assert_int_equal(record_encode(&record, &text, &len, NULL), -EILSEQ);
        assert_null(text);
        record_clear(&record);
    }
}

static void test_a_record_is_whole_or_corrupt(void **state)
{
    struct record record = make_record(), copy;
    char *text = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(record_encode(&record, &text, &len, NULL), 0);
    for (size_t n = 0; n < len; n++) {
        char *cut = malloc(n + 1); /* so that a read past the end is one past what was allocated */
        memcpy(cut, text, n);
        assert_int_equal(record_decode(cut, n, &copy, NULL), RECORD_E_CORRUPT);
        free(cut);
    }
    for (size_t i = 0; i < len; i++) {
        text[i] ^= 1;
        assert_int_equal(record_decode(text, len, &copy, NULL), RECORD_E_CORRUPT);
        text[i] ^= 1;
    }
    free(text);
    record_clear(&record);
}

static void test_more_than_a_record_is_corrupt(void **state)
{
    struct record record = make_record(), copy;
    char *text = NULL, *more = NULL;
    size_t len = 0;

    (void)state;
    assert_int_equal(record_encode(&record, &text, &len, NULL), 0);
    assert_true(asprintf(&more, "%s\n", text) > 0);
    assert_int_equal(record_decode(more, len + 1, &copy, NULL), RECORD_E_CORRUPT);
    free(more);
    assert_true(asprintf(&more, "%s%s", text, text) > 0);
    assert_int_equal(record_decode(more, 2 * len, &copy, NULL), RECORD_E_CORRUPT);
    free(more);
    free(text);
    record_clear(&record);
}

static void test_another_version_is_known_as_such(void **state)
{
    (void)state;
    assert_int_equal(decode("{\"version\":2}"), RECORD_E_VERSION);
    assert_int_equal(decode("{\"version\":0}"), RECORD_E_VERSION);
    assert_int_equal(decode("{\"version\":4294967297}"), RECORD_E_VERSION); /* 1 in 32 bits */
    assert_int_equal(decode("{\"version\":\"1\"}"), RECORD_E_CORRUPT);
    assert_int_equal(decode("{\"version\":1}"), RECORD_E_CORRUPT);
    assert_int_equal(decode("{}"), RECORD_E_CORRUPT);
    assert_int_equal(decode("[]"), RECORD_E_CORRUPT);
    assert_int_equal(decode(""), RECORD_E_CORRUPT);
}

/* A checksum proves that nothing was damaged, not that it was we who wrote it. */
static void test_a_record_names_only_what_it_may(void **state)
{
    static const char *const bad[] = {
        GROUPS(""),
        GROUPS(GROUP("/etc", "0")),
        GROUPS(GROUP("..", "0")),
        GROUPS(GROUP("../x", "0")),
        GROUPS(GROUP("x/../../y", "0")),
        GROUPS(GROUP("x/..", "0")),
        GROUPS(GROUP("", "1\\n")),
        GROUPS(GROUP("", "all")),
        GROUPS(GROUP("", "-1")),
        GROUPS(GROUP("", "99999999999999999999999")),
        GROUPS("{\"path\":\"\",\"inode\":\"1\",\"swap_max\":\"0\"}"),
        GROUPS("{\"path\":\"\",\"swap_max\":\"0\"}"),
        GROUPS("{\"path\":\"\",\"path\":\"a\",\"inode\":1,\"swap_max\":\"0\"}"),
        GROUPS("1"),
        "{" HEAD "\"containers\":[]}",
        "{" HEAD "\"containers\":{}}",
        "{" HEAD "\"containers\":[1]}",
        "{" HEAD "\"containers\":[{\"id\":\"c\",\"cgroup\":\"/c\",\"memory_before\":0,"
        "\"groups\":[" GROUP("", "0") "]}]}",
        "{" HEAD "\"containers\":[{\"id\":\"c\",\"cgroup\":\"a/../../c\",\"memory_before\":0,"
        "\"groups\":[" GROUP("", "0") "]}]}",
    };

    (void)state;
    assert_int_equal(decode(GROUPS(GROUP("", "0"))), 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(decode(bad[i]), RECORD_E_CORRUPT);
}

static char *replace(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    char *other = NULL;

    assert_non_null(at);
    assert_true(asprintf(&other, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from)) > 0);
    return other;
}

static void test_every_field_is_checked(void **state)
{
    static const struct {
        const char *from, *to;
    } changes[] = {
        { UID, "../../../../etc/passwd" },
        { UID, "5B0C9A7E-12F4-4C1D-9E3B-000000000001" },
        { "\"wait\"", "\"wait \"" },
        { "\"wait\"", "0" },
        { "\"none\"", "\"never\"" },
        { "\"boot_id\":\"b\"", "\"boot_id\":\"0123456789012345678901234567890123456789\"" },
        { "\"generation\":0", "\"generation\":1.5" },
        { "\"generation\":0", "\"generation\":99999999999999999999" },
        { "\"frozen_at_usec\":1", "\"frozen_at_usec\":null" },
        { "\"group\":\"\"", "\"group\":\"\\u0000\"" },
    };
    static const char good[] = GROUPS(GROUP("", "0"));

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        char *json = replace(good, changes[i].from, changes[i].to);
        assert_int_equal(decode(json), RECORD_E_CORRUPT);
        free(json);
    }
}

static struct record make_large(unsigned n_containers, unsigned n_groups)
{
    struct record record = { .pod_uid = UID };

    for (unsigned i = 0; i < n_containers; i++) {
        struct record_container *container = add_container(&record, "c");
        for (unsigned k = 0; k < n_groups; k++)
            add_group(container, "", k, "max");
    }
    return record;
}

static int encode_and_decode(struct record *record)
{
    struct record copy;
    char *text = NULL;
    size_t len = 0;

    assert_int_equal(record_encode(record, &text, &len, NULL), 0);
    int r = record_decode(text, len, &copy, NULL);
    if (r == 0)
        record_clear(&copy);
    free(text);
    record_clear(record);
    return r;
}

static void test_limits(void **state)
{
    static const struct {
        unsigned n_containers, n_groups;
        int r;
    } sizes[] = {
        { POD_CONTAINERS_MAX, CONTAINER_GROUPS_MAX, 0 },
        { POD_CONTAINERS_MAX + 1, 1, RECORD_E_CORRUPT },
        { 1, CONTAINER_GROUPS_MAX + 1, RECORD_E_CORRUPT },
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct record record = make_large(sizes[i].n_containers, sizes[i].n_groups);
        assert_int_equal(encode_and_decode(&record), sizes[i].r);
    }
}

/* The largest that there can be: long names fit, and what does not is not written at all, since it
 * could not be read. */
static void test_what_is_written_is_small_enough_to_be_read(void **state)
{
    struct record record = make_large(POD_CONTAINERS_MAX, CONTAINER_GROUPS_MAX);
    const size_t size = sizeof record.containers[0].groups[0].path;
    char *text = NULL;
    size_t len = 0;

    (void)state;
    for (unsigned i = 0; i < record.n_containers; i++)
        for (unsigned k = 0; k < record.containers[i].n_groups; k++)
            memset(record.containers[i].groups[k].path, 'x', size - 1);
    assert_int_equal(record_encode(&record, &text, &len, NULL), 0);
    assert_true(len <= RECORD_SIZE_MAX);
    free(text);
    for (unsigned i = 0; i < record.n_containers; i++)
        for (unsigned k = 0; k < record.containers[i].n_groups; k++)
            memset(record.containers[i].groups[k].path, '\x01', size - 1); /* six bytes in JSON */
    assert_int_equal(record_encode(&record, &text, &len, NULL), -EFBIG);
    record_clear(&record);
}

static void test_names_are_complete(void **state)
{
    (void)state;
    assert_string_equal(reclaim_mode_names[RECLAIM_OFF], "off");
    assert_null(reclaim_mode_names[RECLAIM_OFF + 1]);
    assert_string_equal(wake_on_names[WAKE_ON_NONE], "none");
    assert_null(wake_on_names[WAKE_ON_NONE + 1]);
}

static void test_this_boot_has_an_id(void **state)
{
    char id[40];

    (void)state;
    assert_int_equal(record_boot_id(id, NULL), 0);
    assert_int_equal(strlen(id), 36);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_record_comes_back_as_it_was),
        cmocka_unit_test(test_odd_names_come_back_as_they_were),
        cmocka_unit_test(test_what_cannot_be_written_is_no_record),
        cmocka_unit_test(test_a_record_is_whole_or_corrupt),
        cmocka_unit_test(test_more_than_a_record_is_corrupt),
        cmocka_unit_test(test_another_version_is_known_as_such),
        cmocka_unit_test(test_a_record_names_only_what_it_may),
        cmocka_unit_test(test_every_field_is_checked),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_what_is_written_is_small_enough_to_be_read),
        cmocka_unit_test(test_names_are_complete),
        cmocka_unit_test(test_this_boot_has_an_id),
    };

    return cmocka_run_group_tests_name("record", tests, NULL, NULL);
}
