#include "common/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include <setjmp.h>

#include <cmocka.h>

/* ---- the kernel, which can be told to fail ---- */

static struct {
    char calls[64];   /* one letter for each call that was made */
    int dir_fd;       /* an fsync of it is 'd', of a file 'f' */
    unsigned fail_at; /* the n-th call fails with err, from 1; 0: none */
    int err;
    bool interrupt; /* each call fails with EINTR at its first try */
    bool interrupted;
    bool dribble; /* a write takes one byte */
    unsigned n;
} kernel;

/* Only open, write and fsync can be interrupted. */
static bool fails(char letter)
{
    if (kernel.interrupt && !kernel.interrupted && strchr("owfd", letter)) {
        kernel.interrupted = true;
        errno = EINTR;
        return true;
    }
    kernel.interrupted = false;

    if (kernel.n < sizeof(kernel.calls) - 1)
        kernel.calls[kernel.n] = letter;
    kernel.n++;
    if (kernel.n != kernel.fail_at)
        return false;
    errno = kernel.err;
    return true;
}

int __real_openat(int dir_fd, const char *name, int flags, ...);
int __wrap_openat(int dir_fd, const char *name, int flags, mode_t mode);
ssize_t __real_write(int fd, const void *data, size_t len);
ssize_t __wrap_write(int fd, const void *data, size_t len);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __real_unlinkat(int dir_fd, const char *name, int flags);
int __wrap_unlinkat(int dir_fd, const char *name, int flags);

struct dirent *__real_readdir(DIR *stream);
struct dirent *__wrap_readdir(DIR *stream);

int __wrap_openat(int dir_fd, const char *name, int flags, mode_t mode)
{
    return fails('o') ? -1 : __real_openat(dir_fd, name, flags, mode);
}

ssize_t __wrap_write(int fd, const void *data, size_t len)
{
    if (fails('w'))
        return -1;
    return __real_write(fd, data, kernel.dribble && len > 1 ? 1 : len);
}

int __wrap_fsync(int fd)
{
    return fails(fd == kernel.dir_fd ? 'd' : 'f') ? -1 : __real_fsync(fd);
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return fails('r') ? -1 : __real_renameat(from_fd, from, to_fd, to);
}

int __wrap_unlinkat(int dir_fd, const char *name, int flags)
{
    return fails('u') ? -1 : __real_unlinkat(dir_fd, name, flags);
}

struct dirent *__wrap_readdir(DIR *stream)
{
    return fails('l') ? NULL : __real_readdir(stream);
}

static void reset_kernel(void)
{
    int dir_fd = kernel.dir_fd;

    memset(&kernel, 0, sizeof(kernel));
    kernel.dir_fd = dir_fd;
}

/* ---- a directory for each test ---- */

static char dir_path[] = "/tmp/test-file-XXXXXX";
static int dir;

static int make_dir(void **state)
{
    (void)state;
    strcpy(dir_path + sizeof(dir_path) - 7, "XXXXXX");
    if (!mkdtemp(dir_path))
        return -1;
    dir = open(dir_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    kernel.dir_fd = dir;
    reset_kernel();
    return dir < 0 ? -1 : 0;
}

static int remove_dir(void **state)
{
    char command[64];

    (void)state;
    close(dir);
    snprintf(command, sizeof(command), "rm -rf '%s'", dir_path);
    return system(command);
}

static void put(const char *name, const char *text)
{
    int fd = __real_openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    assert_true(fd >= 0);
    assert_int_equal(__real_write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static bool exists(const char *name)
{
    return faccessat(dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

static void assert_content(const char *name, const char *text)
{
    char *data = NULL;
    size_t len;

    reset_kernel();
    assert_int_equal(file_read(dir, name, 1 << 20, &data, &len, NULL), 0);
    assert_int_equal(len, strlen(text));
    assert_string_equal(data, text);
    free(data);
}

static int replace(const char *name, const char *text, struct error *error)
{
    return file_replace(dir, name, text, strlen(text), error);
}

/* ---- replace ---- */

static void test_replace_makes_and_replaces(void **state)
{
    struct stat st;

    (void)state;
    assert_int_equal(replace("a", "one", NULL), 0);
    assert_content("a", "one");
    assert_int_equal(replace("a", "", NULL), 0);
    assert_content("a", "");
    assert_int_equal(replace("a", "a longer text", NULL), 0);
    assert_content("a", "a longer text");

    assert_int_equal(fstatat(dir, "a", &st, 0), 0);
    assert_int_equal(st.st_mode, S_IFREG | 0600);
    assert_false(exists(FILE_TEMP_PREFIX "a"));
}

static void test_replace_syncs_in_the_right_order(void **state)
{
    (void)state;
    assert_int_equal(replace("a", "one", NULL), 0);
    assert_string_equal(kernel.calls, "uowfrd");
}

static void test_replace_writes_on_after_a_short_write(void **state)
{
    (void)state;
    kernel.dribble = true;
    assert_int_equal(replace("a", "hello", NULL), 0);
    assert_string_equal(kernel.calls, "uowwwwwfrd");
    assert_content("a", "hello");
}

static void test_replace_goes_on_after_a_signal(void **state)
{
    (void)state;
    kernel.interrupt = true;
    kernel.dribble = true;
    assert_int_equal(replace("a", "hello", NULL), 0);
    assert_string_equal(kernel.calls, "uowwwwwfrd");
    assert_content("a", "hello");
}

/* Every call fails once: the old text or the new, no temporary, and the call that failed is named.
 */
static void test_replace_survives_the_failure_of_any_call(void **state)
{
    static const struct {
        const char *sentence;
        const char *content;
    } after[] = {
        { "remove stale .tmp-a: Input/output error", "old" },
        { "create .tmp-a: Input/output error", "old" },
        { "write .tmp-a: Input/output error", "old" },
        { "fsync .tmp-a: Input/output error", "old" },
        { "rename .tmp-a to a: Input/output error", "old" },
        { "fsync the directory of a: Input/output error", "new" },
    };

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(after); i++) {
        struct error error = ERROR_INIT;

        put("a", "old");
        put(FILE_TEMP_PREFIX "a", "stale");
        reset_kernel();
        kernel.fail_at = i + 1;
        kernel.err = EIO;
        assert_int_equal(replace("a", "new", &error), -EIO);
        assert_string_equal(error.msg, after[i].sentence);
        assert_content("a", after[i].content);
        assert_false(exists(FILE_TEMP_PREFIX "a"));
    }
    /* and with no call left to fail it works */
    reset_kernel();
    kernel.fail_at = ARRAY_SIZE(after) + 1;
    assert_int_equal(replace("a", "new", NULL), 0);
}

static void test_replace_on_a_full_disk_keeps_the_old(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    put("a", "old");
    kernel.dribble = true;
    kernel.fail_at = 5; /* u o w w, and then no room */
    kernel.err = ENOSPC;
    assert_int_equal(replace("a", "new", &error), -ENOSPC);
    assert_string_equal(error.msg, "write .tmp-a: No space left on device");
    assert_content("a", "old");
    assert_false(exists(FILE_TEMP_PREFIX "a"));
}

static void test_replace_removes_a_stale_temporary(void **state)
{
    (void)state;
    put(FILE_TEMP_PREFIX "a", "half of someth");
    assert_int_equal(replace("a", "x", NULL), 0);
    assert_content("a", "x");
    assert_false(exists(FILE_TEMP_PREFIX "a"));
}

static void test_replace_takes_no_temporary_of_others(void **state)
{
    (void)state;
    put(FILE_TEMP_PREFIX "a", "made by another after the look");
    kernel.fail_at = 1;
    kernel.err = ENOENT;
    assert_int_equal(replace("a", "x", NULL), -EEXIST);
    assert_false(exists("a"));
}

static void test_replace_follows_no_link(void **state)
{
    (void)state;
    put("victim", "untouched");
    assert_int_equal(symlinkat("victim", dir, FILE_TEMP_PREFIX "a"), 0);
    assert_int_equal(symlinkat("victim", dir, "a"), 0);
    assert_int_equal(replace("a", "x", NULL), 0);
    assert_content("a", "x");
    assert_content("victim", "untouched");
}

static void test_replace_of_a_directory_fails(void **state)
{
    (void)state;
    assert_int_equal(mkdirat(dir, "a", 0700), 0);
    assert_int_equal(replace("a", "x", NULL), -EISDIR);
    assert_false(exists(FILE_TEMP_PREFIX "a"));
}

static void test_bad_names_are_refused(void **state)
{
    static const char *const bad[] = { "", ".", "..", "a/b", "/a", "../a", "a/" };
    char *data = NULL;
    size_t len;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(replace(bad[i], "x", NULL), -EINVAL);
        assert_int_equal(file_remove(dir, bad[i], NULL), -EINVAL);
        assert_int_equal(file_read(dir, bad[i], 10, &data, &len, NULL), -EINVAL);
    }
    assert_int_equal(replace(FILE_TEMP_PREFIX "a", "x", NULL), -EINVAL);
    assert_string_equal(kernel.calls, "");
    assert_null(data);
}

static void test_the_longest_name(void **state)
{
    char name[NAME_MAX + 1];
    size_t longest = NAME_MAX - strlen(FILE_TEMP_PREFIX);

    (void)state;
    memset(name, 'n', sizeof(name));
    name[longest] = '\0';
    assert_int_equal(replace(name, "x", NULL), 0);
    assert_content(name, "x");
    name[longest] = 'n';
    name[longest + 1] = '\0';
    assert_int_equal(replace(name, "x", NULL), -ENAMETOOLONG);
}

/* ---- remove ---- */

static void test_remove_is_durable(void **state)
{
    (void)state;
    put("a", "x");
    assert_int_equal(file_remove(dir, "a", NULL), 0);
    assert_string_equal(kernel.calls, "ud");
    assert_false(exists("a"));
}

static void test_remove_of_nothing_is_durable_success(void **state)
{
    (void)state;
    assert_int_equal(file_remove(dir, "a", NULL), 0);
    assert_string_equal(kernel.calls, "ud");
}

static void test_remove_tells_its_failures(void **state)
{
    struct error error = ERROR_INIT;

    (void)state;
    put("a", "x");
    kernel.fail_at = 1;
    kernel.err = EROFS;
    assert_int_equal(file_remove(dir, "a", &error), -EROFS);
    assert_string_equal(error.msg, "remove a: Read-only file system");
    assert_true(exists("a"));

    reset_kernel();
    kernel.fail_at = 2;
    kernel.err = EIO;
    assert_int_equal(file_remove(dir, "a", &error), -EIO);
    assert_string_equal(error.msg, "fsync the directory of a: Input/output error");
}

static void test_remove_temporaries(void **state)
{
    (void)state;
    put(FILE_TEMP_PREFIX "a", "x");
    put(FILE_TEMP_PREFIX, "x");
    put("a", "x");
    put(".tmpa", "x");
    put("a" FILE_TEMP_PREFIX, "x");
    assert_int_equal(mkdirat(dir, FILE_TEMP_PREFIX "dir", 0700), 0);
    assert_int_equal(file_remove_temporaries(dir, NULL), 0);

    assert_false(exists(FILE_TEMP_PREFIX "a"));
    assert_false(exists(FILE_TEMP_PREFIX));
    assert_true(exists("a"));
    assert_true(exists(".tmpa"));
    assert_true(exists("a" FILE_TEMP_PREFIX));
    assert_true(exists(FILE_TEMP_PREFIX "dir"));
}

static void test_remove_temporaries_can_be_called_twice(void **state)
{
    (void)state;
    put(FILE_TEMP_PREFIX "a", "x");
    assert_int_equal(file_remove_temporaries(dir, NULL), 0);
    put(FILE_TEMP_PREFIX "b", "x");
    assert_int_equal(file_remove_temporaries(dir, NULL), 0);
    assert_false(exists(FILE_TEMP_PREFIX "b"));
}

static void test_remove_temporaries_tells_its_failures(void **state)
{
    (void)state;
    put(FILE_TEMP_PREFIX "a", "x");
    for (unsigned i = 1;; i++) {
        reset_kernel();
        kernel.fail_at = i;
        kernel.err = EACCES;
        int r = file_remove_temporaries(dir, NULL);
        if (kernel.n < i) {
            assert_int_equal(r, 0);
            break;
        }
        assert_int_equal(r, -EACCES);
    }
    assert_false(exists(FILE_TEMP_PREFIX "a"));
    assert_string_equal(kernel.calls, "ollld"); /* ".", "..", the end */
}

/* ---- read ---- */

static void test_read_at_the_limit_and_one_past(void **state)
{
    char *data = NULL;
    size_t len = 99;
    struct error error = ERROR_INIT;

    (void)state;
    put("a", "12345678");
    assert_int_equal(file_read(dir, "a", 8, &data, &len, NULL), 0);
    assert_int_equal(len, 8);
    assert_string_equal(data, "12345678");
    free(TAKE_PTR(data));

    assert_int_equal(file_read(dir, "a", 7, &data, &len, &error), -EFBIG);
    assert_string_equal(error.msg, "read a: File too large");
    assert_null(data);
}

static void test_read_of_nothing(void **state)
{
    char *data = NULL;
    size_t len = 99;

    (void)state;
    put("a", "");
    assert_int_equal(file_read(dir, "a", 0, &data, &len, NULL), 0);
    assert_int_equal(len, 0);
    assert_string_equal(data, "");
    free(data);
}

static void test_read_keeps_zero_bytes(void **state)
{
    char *data = NULL;
    size_t len;

    (void)state;
    assert_int_equal(file_replace(dir, "a", "x\0y", 3, NULL), 0);
    assert_int_equal(file_read(dir, "a", 10, &data, &len, NULL), 0);
    assert_int_equal(len, 3);
    assert_memory_equal(data, "x\0y", 4);
    free(data);
}

/* A file of /proc says that it is empty and is not. */
static void test_read_of_a_file_without_a_size(void **state)
{
    char *data = NULL;
    size_t len;

    (void)state;
    int proc = open("/proc/self", O_RDONLY | O_DIRECTORY);
    assert_int_equal(file_read(proc, "status", 1 << 16, &data, &len, NULL), 0);
    assert_int_equal(strncmp(data, "Name:", 5), 0);
    assert_int_equal(strlen(data), len);
    assert_true(len > 500);
    free(TAKE_PTR(data));
    assert_int_equal(file_read(proc, "status", 100, &data, &len, NULL), -EFBIG);
    assert_null(data);
    close(proc);
}

static void test_read_takes_regular_files_only(void **state)
{
    char *data = NULL;
    size_t len;

    (void)state;
    alarm(20);
    put("a", "x");
    assert_int_equal(mkdirat(dir, "dir", 0700), 0);
    assert_int_equal(mkfifoat(dir, "fifo", 0600), 0);
    assert_int_equal(symlinkat("a", dir, "link"), 0);
    assert_int_equal(file_read(dir, "dir", 10, &data, &len, NULL), -EINVAL);
    assert_int_equal(file_read(dir, "fifo", 10, &data, &len, NULL), -EINVAL);
    assert_int_equal(file_read(dir, "link", 10, &data, &len, NULL), -ELOOP);
    assert_int_equal(file_read(dir, "none", 10, &data, &len, NULL), -ENOENT);
    assert_null(data);
    alarm(0);
}

#define in_dir(test) cmocka_unit_test_setup_teardown(test, make_dir, remove_dir)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        in_dir(test_replace_makes_and_replaces),
        in_dir(test_replace_syncs_in_the_right_order),
        in_dir(test_replace_writes_on_after_a_short_write),
        in_dir(test_replace_goes_on_after_a_signal),
        in_dir(test_replace_survives_the_failure_of_any_call),
        in_dir(test_replace_on_a_full_disk_keeps_the_old),
        in_dir(test_replace_removes_a_stale_temporary),
        in_dir(test_replace_takes_no_temporary_of_others),
        in_dir(test_replace_follows_no_link),
        in_dir(test_replace_of_a_directory_fails),
        in_dir(test_bad_names_are_refused),
        in_dir(test_the_longest_name),
        in_dir(test_remove_is_durable),
        in_dir(test_remove_of_nothing_is_durable_success),
        in_dir(test_remove_tells_its_failures),
        in_dir(test_remove_temporaries),
        in_dir(test_remove_temporaries_can_be_called_twice),
        in_dir(test_remove_temporaries_tells_its_failures),
        in_dir(test_read_at_the_limit_and_one_past),
        in_dir(test_read_of_nothing),
        in_dir(test_read_keeps_zero_bytes),
        in_dir(test_read_of_a_file_without_a_size),
        in_dir(test_read_takes_regular_files_only),
    };

    return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
