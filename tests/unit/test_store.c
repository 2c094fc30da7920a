#include "agent/store.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/file.h"
#include "node.h"

/* ---- the bench: a state directory ---- */

static char dir[64];
static char path[96];
static struct store *store;

static struct store *open_store(int flags)
{
    struct store *opened = NULL;

    assert_int_equal(store_open(&opened, path, flags, NULL), 0);
    return opened;
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/torpor-store-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/a/state", dir);
    store = open_store(0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    store = store_close(store);
    return system(keep("rm -r %s", dir));
}

static const char *file_of(const char *name)
{
    return keep("%s/%s", path, name);
}

static void put_file(const char *name, const char *text)
{
    FILE *file = fopen(file_of(name), "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static bool exists(const char *name)
{
    return access(file_of(name), F_OK) == 0;
}

static const char *record_name(unsigned i)
{
    return keep("%s.json", nth_uid(i));
}

static void put_record(unsigned i)
{
    struct record record = { .boot_id = "b" };

    strcpy(record.pod_uid, nth_uid(i));
    struct record_container *container = record_add_container(&record);
    assert_non_null(container);
    container->cgroup = strdup(container_path(i, 0));
    assert_non_null(record_add_group(container));
    assert_int_equal(store_put(store, &record, NULL), 0);
    record_clear(&record);
}

static int get_record(unsigned i)
{
    struct record record;
    int r = store_get(store, nth_uid(i), &record, NULL);

    if (r == 0) {
        assert_string_equal(record.pod_uid, nth_uid(i));
        record_clear(&record);
    }
    return r;
}

/* ---- opening ---- */

static void test_the_directory_is_made_for_its_owner_alone(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
}

static void test_a_second_agent_is_kept_out(void **state)
{
    struct store *second = NULL;
    struct error error = ERROR_INIT;

    (void)state;
    assert_int_equal(store_open(&second, path, 0, &error), -EBUSY);
    assert_null(second);
    assert_non_null(strstr(error.msg, path));
    store = store_close(store);
    store = open_store(0); /* and let in when the first has gone */
}

static void test_a_second_agent_disturbs_nothing(void **state)
{
    struct store *second = NULL;

    (void)state;
    put_file(FILE_TEMP_PREFIX "x", "half written by the first");
    assert_int_equal(store_open(&second, path, 0, NULL), -EBUSY);
    assert_true(exists(FILE_TEMP_PREFIX "x"));
}

static void test_shared_it_opens_beside_a_running_agent(void **state)
{
    (void)state;
    put_record(1);
    put_file(FILE_TEMP_PREFIX "x", "");
    struct store *second = open_store(STORE_SHARED);
    assert_int_equal(store_remove(second, nth_uid(1), NULL), 0);
    assert_true(exists(FILE_TEMP_PREFIX "x"));
    store_close(second);
    assert_false(exists(record_name(1)));
}

static void test_temporaries_of_a_crash_are_removed(void **state)
{
    (void)state;
    put_record(1);
    put_file(FILE_TEMP_PREFIX "a.json", "{\"ver");
    put_file("notes.txt", "of a person");
    store = store_close(store);
    store = open_store(0);
    assert_false(exists(FILE_TEMP_PREFIX "a.json"));
    assert_true(exists("notes.txt"));
    assert_int_equal(get_record(1), 0);
}

static void test_what_is_no_directory_is_an_error(void **state)
{
    struct store *other = NULL;

    (void)state;
    put_file("file", "");
    assert_int_equal(store_open(&other, file_of("file"), 0, NULL), -ENOTDIR);
    assert_int_equal(store_open(&other, file_of("file/below"), 0, NULL), -ENOTDIR);
    assert_null(store_close(NULL));
}

/* ---- records ---- */

static void test_a_record_is_put_got_and_removed(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(get_record(1), -ENOENT);
    put_record(1);
    put_record(1);
    assert_int_equal(get_record(1), 0);
    assert_int_equal(stat(file_of(record_name(1)), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    assert_int_equal(store_remove(store, nth_uid(1), NULL), 0);
    assert_int_equal(get_record(1), -ENOENT);
    assert_int_equal(store_remove(store, nth_uid(1), NULL), 0); /* again */
    assert_int_equal(count_entries(path), 1);                   /* the lock */
}

static void test_a_record_that_was_cut_short_is_corrupt(void **state)
{
    (void)state;
    put_record(1);
    assert_int_equal(truncate(file_of(record_name(1)), 40), 0);
    assert_int_equal(get_record(1), RECORD_E_CORRUPT);
    assert_int_equal(truncate(file_of(record_name(1)), 0), 0);
    assert_int_equal(get_record(1), RECORD_E_CORRUPT);
}

static void test_a_record_under_the_wrong_name_is_corrupt(void **state)
{
    (void)state;
    put_record(1);
    assert_int_equal(rename(file_of(record_name(1)), file_of(record_name(2))), 0);
    assert_int_equal(get_record(2), RECORD_E_CORRUPT);
}

static void test_a_record_that_is_too_large_is_corrupt(void **state)
{
    struct error error = ERROR_INIT;
    struct record record;

    (void)state;
    put_record(1);
    assert_int_equal(truncate(file_of(record_name(1)), RECORD_SIZE_MAX + 1), 0);
    assert_int_equal(store_get(store, nth_uid(1), &record, &error), RECORD_E_CORRUPT);
    assert_true(*error.msg);
}

/* Whatever is there in the place of a record, nobody can understand it. */
static void test_what_is_no_file_is_corrupt_and_not_followed(void **state)
{
    (void)state;
    put_record(1);
    assert_int_equal(symlink(file_of(record_name(1)), file_of(record_name(2))), 0);
    assert_int_equal(get_record(2), RECORD_E_CORRUPT);
    assert_int_equal(mkdir(file_of(record_name(3)), 0700), 0);
    assert_int_equal(get_record(3), RECORD_E_CORRUPT);
    assert_int_equal(store_set_aside(store, nth_uid(3), NULL), 0);
    assert_true(exists(keep("%s.unreadable", record_name(3))));
}

static void test_what_is_set_aside_is_kept_under_another_name(void **state)
{
    (void)state;
    put_file(record_name(1), "nonsense");
    assert_int_equal(store_set_aside(store, nth_uid(1), NULL), 0);
    assert_false(exists(record_name(1)));
    assert_true(exists(keep("%s.unreadable", record_name(1))));
    assert_int_equal(store_set_aside(store, nth_uid(1), NULL), -ENOENT);
}

/* ---- all of them ---- */

struct listing {
    unsigned n;
    unsigned end_after; /* 0: never */
};

static int count_one(const char *uid, void *userdata)
{
    struct listing *listing = userdata;

    assert_string_not_equal(uid, "");
    return ++listing->n == listing->end_after ? 42 : 0;
}

static int remove_one(const char *uid, void *userdata)
{
    ++*(unsigned *)userdata;
    return store_remove(store, uid, NULL);
}

static void test_every_record_is_listed_and_nothing_else(void **state)
{
    struct listing listing = { 0 };

    (void)state;
    for (unsigned i = 0; i < 50; i++)
        put_record(i);
    put_file(keep("%s.unreadable", record_name(60)), "");
    put_file(keep("%s", nth_uid(61)), "");
    put_file("x.json", "");
    put_file(".json", "");
    put_file(FILE_TEMP_PREFIX "y.json", "");
    put_file("5B0C9A7E-12F4-4C1D-9E3B-000000000001.json", "");
    assert_int_equal(store_for_each(store, count_one, &listing, NULL), 0);
    assert_int_equal(listing.n, 50);
    listing = (struct listing){ .end_after = 7 };
    assert_int_equal(store_for_each(store, count_one, &listing, NULL), 42);
    assert_int_equal(listing.n, 7);
}

static void test_records_may_be_removed_while_they_are_listed(void **state)
{
    unsigned n = 0;

    (void)state;
    for (unsigned i = 0; i < 50; i++)
        put_record(i);
    assert_int_equal(store_for_each(store, remove_one, &n, NULL), 0);
    assert_int_equal(n, 50);
    assert_int_equal(count_entries(path), 1);
}

static void test_the_probe_leaves_nothing(void **state)
{
    (void)state;
    assert_int_equal(store_probe(store, NULL), 0);
    assert_int_equal(count_entries(path), 1);
    assert_int_equal(system(keep("rm -r %s", path)), 0);
    assert_true(store_probe(store, NULL) < 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_the_directory_is_made_for_its_owner_alone),
        TEST(test_a_second_agent_is_kept_out),
        TEST(test_a_second_agent_disturbs_nothing),
        TEST(test_shared_it_opens_beside_a_running_agent),
        TEST(test_temporaries_of_a_crash_are_removed),
        TEST(test_what_is_no_directory_is_an_error),
        TEST(test_a_record_is_put_got_and_removed),
        TEST(test_a_record_that_was_cut_short_is_corrupt),
        TEST(test_a_record_under_the_wrong_name_is_corrupt),
        TEST(test_a_record_that_is_too_large_is_corrupt),
        TEST(test_what_is_no_file_is_corrupt_and_not_followed),
        TEST(test_what_is_set_aside_is_kept_under_another_name),
        TEST(test_every_record_is_listed_and_nothing_else),
        TEST(test_records_may_be_removed_while_they_are_listed),
        TEST(test_the_probe_leaves_nothing),
    };

    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
