#include "fake_kernel.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define PATH_SIZE 4096
#define TEXT_SIZE 4096
#define RULES_MAX 64

enum rule_kind { RULE_REFUSE, RULE_NEVER_FREEZES, RULE_LINGERS, RULE_KEEPS, RULE_PRETENDS };

struct rule {
    enum rule_kind kind;
    char path[1024]; /* "" for any */
    char file[32];
    int err;
    unsigned times; /* 0: no end */
    uint64_t bytes;
};

static struct {
    pthread_mutex_t lock;
    char root[1024];
    bool with_memory;
    struct rule rules[RULES_MAX];
    unsigned n_rules;
    struct {
        int err;
        unsigned times;
    } disk[2];
    char **journal;
    unsigned n_journal;
} fake = { .lock = PTHREAD_MUTEX_INITIALIZER };

struct gate fake_reclaim_gate = GATE_INIT;
struct gate fake_disk_gate = GATE_INIT;

static void must(bool holds, const char *what, const char *which)
{
    if (holds)
        return;
    fprintf(stderr, "fake_kernel: %s %s: %s\n", what, which, strerror(errno));
    abort();
}

/* ---- plain files ---- */

static void full_path(char full[static PATH_SIZE], const char *path, const char *file)
{
    int n = snprintf(full, PATH_SIZE, "%s%s%s%s%s", fake.root, *path ? "/" : "", path,
                     *file ? "/" : "", file);

    must(n < PATH_SIZE, "path", path);
}

static bool read_file(const char *path, const char *file, char text[static TEXT_SIZE])
{
    char full[PATH_SIZE];

    full_path(full, path, file);
    int fd = open(full, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, TEXT_SIZE - 1);
    if (fd >= 0)
        close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n >= 0;
}

/* A reader on another thread sees the old text, or its beginning, or the new text; of a number, a
 * number in each case. pwrite, because write is what is replaced. */
static bool put_file(const char *path, const char *file, const char *text, int flags)
{
    char full[PATH_SIZE];
    struct stat st;
    size_t len = strlen(text);

    full_path(full, path, file);
    int fd = open(full, O_WRONLY | O_CLOEXEC | flags, 0644);
    if (fd < 0)
        return false;
    must(fstat(fd, &st) == 0, "stat", full);
    if ((size_t)st.st_size > len)
        must(ftruncate(fd, (off_t)len) == 0, "truncate", full);
    must(pwrite(fd, text, len, 0) == (ssize_t)len, "write", full);
    close(fd);
    return true;
}

static uint64_t read_number(const char *path, const char *file)
{
    char text[TEXT_SIZE];

    return read_file(path, file, text) ? strtoull(text, NULL, 10) : 0;
}

static void put_number(const char *path, const char *file, uint64_t value)
{
    char text[32];

    snprintf(text, sizeof text, "%" PRIu64 "\n", value);
    put_file(path, file, text, 0);
}

static bool is_group(const char *path)
{
    char full[PATH_SIZE];
    struct stat st;

    full_path(full, path, "");
    return stat(full, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- rules ---- */

static void add_rule(const struct rule *rule)
{
    pthread_mutex_lock(&fake.lock);
    must(fake.n_rules < RULES_MAX, "too many", "rules");
    fake.rules[fake.n_rules++] = *rule;
    pthread_mutex_unlock(&fake.lock);
}

static struct rule make_rule(enum rule_kind kind, const char *path)
{
    struct rule rule = { .kind = kind };

    snprintf(rule.path, sizeof rule.path, "%s", path ? path : "");
    return rule;
}

static const struct rule *find_rule(enum rule_kind kind, const char *path)
{
    for (unsigned i = 0; i < fake.n_rules; i++)
        if (fake.rules[i].kind == kind && strcmp(fake.rules[i].path, path) == 0)
            return &fake.rules[i];
    return NULL;
}

/* The errno with which this write fails, or 0. */
static int refusal(const char *path, const char *file)
{
    for (unsigned i = 0; i < fake.n_rules; i++) {
        struct rule *rule = &fake.rules[i];
        if (rule->kind != RULE_REFUSE || strcmp(rule->file, file) != 0 ||
            (*rule->path && strcmp(rule->path, path) != 0))
            continue;
        int err = rule->err;
        if (rule->times > 0 && --rule->times == 0)
            *rule = fake.rules[--fake.n_rules];
        return err;
    }
    return 0;
}

void fake_refuse(const char *path, const char *file, int err, unsigned times)
{
    struct rule rule = make_rule(RULE_REFUSE, path);

    snprintf(rule.file, sizeof rule.file, "%s", file);
    rule.err = err;
    rule.times = times;
    add_rule(&rule);
}

void fake_never_freezes(const char *path)
{
    struct rule rule = make_rule(RULE_NEVER_FREEZES, path);

    add_rule(&rule);
}

void fake_lingers(const char *path)
{
    struct rule rule = make_rule(RULE_LINGERS, path);

    add_rule(&rule);
}

void fake_keeps(const char *path, uint64_t bytes)
{
    struct rule rule = make_rule(RULE_KEEPS, path);

    rule.bytes = bytes;
    add_rule(&rule);
}

void fake_pretends(const char *path)
{
    struct rule rule = make_rule(RULE_PRETENDS, path);

    add_rule(&rule);
}

/* ---- "frozen" ---- */

static void put_events(const char *path, bool populated, bool frozen)
{
    char now[TEXT_SIZE], text[64];

    snprintf(text, sizeof text, "populated %d\nfrozen %d\n", populated, frozen);
    if (read_file(path, "cgroup.events", now) && strcmp(now, text) != 0)
        put_file(path, "cgroup.events", text, 0);
}

static void show_frozen(const char *path, bool frozen)
{
    char now[TEXT_SIZE];

    if (!read_file(path, "cgroup.events", now))
        return;
    if (frozen && find_rule(RULE_NEVER_FREEZES, path))
        frozen = false;
    if (!frozen && strstr(now, "frozen 1") && find_rule(RULE_LINGERS, path))
        frozen = true;
    put_events(path, strstr(now, "populated 1"), frozen);
}

static void freeze_tree(const char *path, bool above)
{
    char full[PATH_SIZE], child[PATH_SIZE];
    bool frozen = above || read_number(path, "cgroup.freeze") == 1;
    struct dirent *entry;

    show_frozen(path, frozen);
    full_path(full, path, "");
    DIR *dir = opendir(full);
    while (dir && (entry = readdir(dir))) {
        if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
            continue;
        must(snprintf(child, sizeof child, "%s/%s", path, entry->d_name) < PATH_SIZE, "path", path);
        freeze_tree(child, frozen);
    }
    if (dir)
        closedir(dir);
}

static bool is_frozen_above(const char *path)
{
    char above[PATH_SIZE];

    snprintf(above, sizeof above, "%s", path);
    for (char *slash; (slash = strrchr(above, '/'));) {
        *slash = '\0';
        if (read_number(above, "cgroup.freeze") == 1)
            return true;
    }
    return false;
}

/* ---- a write ---- */

static int take_freeze(const char *path, const char *text)
{
    if (strcmp(text, "0") != 0 && strcmp(text, "1") != 0)
        return EINVAL;
    put_number(path, "cgroup.freeze", *text == '1');
    freeze_tree(path, is_frozen_above(path));
    return 0;
}

static int take_swap_max(const char *path, const char *text)
{
    char line[64], *end = NULL;

    if (strcmp(text, "max") != 0 && (strtoull(text, &end, 10) == ULLONG_MAX || *end || !*text))
        return EINVAL;
    snprintf(line, sizeof line, "%s\n", text);
    put_file(path, "memory.swap.max", line, 0);
    return 0;
}

static int take_reclaim(const char *path, const char *text)
{
    const struct rule *keeps = find_rule(RULE_KEEPS, path);
    uint64_t current = read_number(path, "memory.current"), wanted = strtoull(text, NULL, 10);
    uint64_t kept = keeps ? keeps->bytes : 0;
    uint64_t there = current > kept ? current - kept : 0;
    uint64_t taken = wanted < there ? wanted : there;

    if (find_rule(RULE_PRETENDS, path))
        return 0;
    put_number(path, "memory.current", current - taken);
    put_number(path, "memory.swap.current", read_number(path, "memory.swap.current") + taken);
    return taken < wanted ? EAGAIN : 0;
}

static int take(const char *path, const char *file, const char *text)
{
    if (!is_group(path))
        return ENODEV;
    if (strcmp(file, "cgroup.freeze") == 0)
        return take_freeze(path, text);
    if (strcmp(file, "memory.swap.max") == 0)
        return take_swap_max(path, text);
    if (strcmp(file, "memory.reclaim") == 0)
        return take_reclaim(path, text);
    return strcmp(file, "cgroup.procs") == 0 ? 0 : EINVAL;
}

/* ---- the journal ---- */

__attribute__((format(printf, 1, 2))) static void note(const char *fmt, ...)
{
    va_list args;

    fake.journal = reallocarray(fake.journal, fake.n_journal + 1, sizeof fake.journal[0]);
    must(fake.journal, "memory for", "the journal");
    va_start(args, fmt);
    must(vasprintf(&fake.journal[fake.n_journal], fmt, args) >= 0, "memory for", "the journal");
    va_end(args);
    fake.n_journal++;
}

void fake_journal_clear(void)
{
    pthread_mutex_lock(&fake.lock);
    for (unsigned i = 0; i < fake.n_journal; i++)
        free(fake.journal[i]);
    free(fake.journal);
    fake.journal = NULL;
    fake.n_journal = 0;
    pthread_mutex_unlock(&fake.lock);
}

static unsigned search_journal(const char *part, unsigned *first, unsigned *last)
{
    unsigned n = 0;

    pthread_mutex_lock(&fake.lock);
    for (unsigned i = 0; i < fake.n_journal; i++) {
        if (!strstr(fake.journal[i], part))
            continue;
        if (n++ == 0)
            *first = i;
        *last = i;
    }
    pthread_mutex_unlock(&fake.lock);
    return n;
}

unsigned fake_journal_count(const char *part)
{
    unsigned first, last;

    return search_journal(part, &first, &last);
}

unsigned fake_journal_first(const char *part)
{
    unsigned first = 0, last = 0;

    must(search_journal(part, &first, &last) > 0, "not in the journal:", part);
    return first;
}

unsigned fake_journal_last(const char *part)
{
    unsigned first = 0, last = 0;

    must(search_journal(part, &first, &last) > 0, "not in the journal:", part);
    return last;
}

void fake_journal_print(void)
{
    pthread_mutex_lock(&fake.lock);
    for (unsigned i = 0; i < fake.n_journal; i++)
        fprintf(stderr, "%s\n", fake.journal[i]);
    pthread_mutex_unlock(&fake.lock);
}

/* ---- the agent's calls ---- */

/* Splits what the fd is open for into group and file; false when it is none of ours. */
static bool find_place(int fd, char path[static PATH_SIZE], const char **file)
{
    char link[64], full[PATH_SIZE];
    size_t root = strlen(fake.root);

    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, full, sizeof full - 1);
    if (n <= 0 || root == 0)
        return false;
    full[n] = '\0';
    if (strncmp(full, fake.root, root) != 0 || full[root] != '/')
        return false;
    strcpy(path, full + root + 1);
    char *slash = strrchr(path, '/');
    if (!slash)
        return false;
    *slash = '\0';
    *file = slash + 1;
    return true;
}

ssize_t fake_kernel_write(int fd, const void *data, size_t len)
{
    char path[PATH_SIZE], text[64];
    const char *file;

    if (!find_place(fd, path, &file))
        return syscall(SYS_write, fd, data, len);
    snprintf(text, sizeof text, "%.*s", (int)len, (const char *)data);
    if (strcmp(file, "memory.reclaim") == 0)
        gate_pass(&fake_reclaim_gate);

    pthread_mutex_lock(&fake.lock);
    int err = refusal(path, file);
    if (err == 0)
        err = take(path, file, text);
    note("%s/%s=%s%s", path, file, text, err ? " !" : "");
    pthread_mutex_unlock(&fake.lock);
    errno = err;
    return err ? -1 : (ssize_t)len;
}

void fake_disk_refuse(enum fake_disk_call call, int err, unsigned times)
{
    pthread_mutex_lock(&fake.lock);
    fake.disk[call].err = err;
    fake.disk[call].times = times;
    pthread_mutex_unlock(&fake.lock);
}

int fake_disk_enter(enum fake_disk_call call)
{
    gate_pass(&fake_disk_gate);
    pthread_mutex_lock(&fake.lock);
    int err = fake.disk[call].err;
    if (err && fake.disk[call].times > 0 && --fake.disk[call].times == 0)
        fake.disk[call].err = 0;
    pthread_mutex_unlock(&fake.lock);
    return -err;
}

void fake_disk_leave(enum fake_disk_call call, const char *name, int r)
{
    pthread_mutex_lock(&fake.lock);
    note("%s %s%s", call == FAKE_DISK_PUT ? "put" : "remove", name, r < 0 ? " !" : "");
    pthread_mutex_unlock(&fake.lock);
}

/* ---- the tree ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    must(remove(path) == 0, "remove", path);
    return 0;
}

static void remove_tree(const char *full)
{
    must(nftw(full, remove_entry, 16, FTW_DEPTH | FTW_PHYS) == 0, "remove", full);
}

static void put_new(const char *path, const char *file, const char *text)
{
    must(put_file(path, file, text, O_CREAT), "make", file);
}

static void fill_group(const char *path, const char *swap_max, uint64_t memory)
{
    char line[64];

    put_new(path, "cgroup.freeze", "0\n");
    put_new(path, "cgroup.events", "populated 1\nfrozen 0\n");
    put_new(path, "cgroup.procs", "");
    put_new(path, "cgroup.controllers", fake.with_memory ? "cpu memory pids\n" : "cpu pids\n");
    if (!fake.with_memory)
        return;
    snprintf(line, sizeof line, "%s\n", swap_max);
    put_new(path, "memory.swap.max", line);
    snprintf(line, sizeof line, "%" PRIu64 "\n", memory);
    put_new(path, "memory.current", line);
    put_new(path, "memory.swap.current", "0\n");
    put_new(path, "memory.reclaim", "");
}

static void make_group(const char *path, const char *swap_max, uint64_t memory)
{
    char full[PATH_SIZE];

    full_path(full, path, "");
    must(mkdir(full, 0755) == 0, "make", full);
    fill_group(path, swap_max, memory);
}

void fake_group(const char *path, const char *swap_max, uint64_t memory)
{
    char above[PATH_SIZE];

    snprintf(above, sizeof above, "%s", path);
    for (char *slash = above; (slash = strchr(slash, '/')); *slash++ = '/') {
        *slash = '\0';
        if (!is_group(above))
            make_group(above, "max", 0);
    }
    make_group(path, swap_max, memory);
    pthread_mutex_lock(&fake.lock);
    freeze_tree(path, is_frozen_above(path));
    pthread_mutex_unlock(&fake.lock);
}

void fake_remove(const char *path)
{
    char full[PATH_SIZE];

    full_path(full, path, "");
    remove_tree(full);
}

/* The new one is made before the old one goes: a file system may give the same inode again. */
void fake_replace(const char *path)
{
    char other[PATH_SIZE], from[PATH_SIZE], to[PATH_SIZE];

    snprintf(other, sizeof other, "%s.other", path);
    make_group(other, "max", 0);
    fake_remove(path);
    full_path(from, other, "");
    full_path(to, path, "");
    must(rename(from, to) == 0, "rename", from);
}

const char *fake_read(const char *path, const char *file)
{
    static char texts[8][TEXT_SIZE];
    static unsigned next;
    char *text = texts[next++ % 8];

    read_file(path, file, text);
    return text;
}

void fake_write(const char *path, const char *file, const char *text)
{
    pthread_mutex_lock(&fake.lock);
    errno = take(path, file, text);
    must(errno == 0, "write", path);
    pthread_mutex_unlock(&fake.lock);
}

void fake_put(const char *path, const char *file, const char *text)
{
    put_new(path, file, text);
}

void fake_populate(const char *path, bool populated)
{
    char now[TEXT_SIZE];

    read_file(path, "cgroup.events", now);
    put_events(path, populated, strstr(now, "frozen 1"));
}

void fake_behave(void)
{
    struct rule lingering[RULES_MAX];
    unsigned n = 0;

    pthread_mutex_lock(&fake.lock);
    for (unsigned i = 0; i < fake.n_rules; i++)
        if (fake.rules[i].kind == RULE_LINGERS)
            lingering[n++] = fake.rules[i];
    fake.n_rules = 0;
    memset(fake.disk, 0, sizeof fake.disk);
    for (unsigned i = 0; i < n; i++)
        freeze_tree(lingering[i].path, is_frozen_above(lingering[i].path));
    pthread_mutex_unlock(&fake.lock);
}

/* ---- beginning and end ---- */

void fake_start(const char *root, bool with_memory)
{
    must(strlen(root) < sizeof fake.root, "root", root);
    strcpy(fake.root, root);
    fake.with_memory = with_memory;
    put_new("", "cgroup.controllers", with_memory ? "cpu memory pids\n" : "cpu pids\n");
}

void fake_stop(void)
{
    gate_open(&fake_reclaim_gate);
    gate_open(&fake_disk_gate);
    fake_behave();
    fake_journal_clear();
    remove_tree(fake.root);
    fake.root[0] = '\0';
}
