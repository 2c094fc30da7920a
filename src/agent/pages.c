#include "agent/pages.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/syscall.h>

/* Entries of the page map in one read: 8 MiB of addresses, about 20 us. */
#define PAGEMAP_BATCH   2048
#define PAGEMAP_SWAPPED ((uint64_t)1 << 62)
#define PAGEMAP_PRESENT ((uint64_t)1 << 63)

/* PAGEMAP_SCAN (6.7) skips what is not populated. From Documentation/admin-guide/mm/pagemap.rst, as
 * the headers that we build with are older. */
struct scan_region {
    uint64_t start, end, categories;
};
struct scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};
#define SCAN_IOCTL   _IOWR('f', 16, struct scan_arg)
#define SCAN_PRESENT ((uint64_t)1 << 3)
#define SCAN_SWAPPED ((uint64_t)1 << 4)

static uint64_t page_size(void)
{
    return (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t pages_sum(const struct iovec *ranges, unsigned n)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < n; i++)
        sum += ranges[i].iov_len;
    return sum;
}

/* ---- can it work? ---- */

static int check_capability(int capability, const char *name, struct error *error)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

    if (syscall(SYS_capget, &header, data) < 0)
        return error_set(error, errno, "read our capabilities");
    if (!(data[capability / 32].effective & (1u << capability % 32)))
        return error_set(error, EPERM, "without %s", name);
    return 0;
}

static int try_madvise(struct error *error)
{
    size_t size = page_size();
    struct iovec range = { mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), size };
    cleanup(close_p) int pidfd = pidfd_open(getpid(), 0);
    ssize_t r = -1;

    if (range.iov_base == MAP_FAILED)
        return error_set(error, errno, "map a page");
    if (pidfd >= 0)
        r = process_madvise(pidfd, &range, 1, MADV_WILLNEED, 0);
    int err = errno;
    munmap(range.iov_base, size);
    return r < 0 ? error_set(error, err, "process_madvise (Linux 5.13 or later)") : 0;
}

int pages_probe(struct error *error)
{
    int r = check_capability(CAP_SYS_PTRACE, "CAP_SYS_PTRACE", error);

    if (r == 0)
        r = check_capability(CAP_SYS_NICE, "CAP_SYS_NICE", error);
    if (r == 0)
        r = try_madvise(error);
    return r;
}

/* ---- a process ---- */

static int open_proc(pid_t pid, const char *file)
{
    char path[64];

    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, file);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? -ESRCH : -errno;
    return fd;
}

/* The 22nd field of /proc/PID/stat; the second, in parentheses, may contain anything. */
static int read_start(pid_t pid, uint64_t *ret)
{
    char text[1024];
    cleanup(close_p) int fd = open_proc(pid, "stat");
    ssize_t n = fd < 0 ? fd : read(fd, text, sizeof text - 1);

    if (n <= 0)
        return -ESRCH;
    text[n] = '\0';
    char *field = strrchr(text, ')');
    for (int i = 2; field && i < 22; i++)
        field = strchr(field + 1, ' ');
    if (!field)
        return -EBADMSG;
    *ret = strtoull(field, NULL, 10);
    return 0;
}

int process_open(struct process *ret, pid_t pid, struct error *error)
{
    struct process process = { .pid = pid, .pidfd = -1, .pagemap_fd = -1 };

    process.pidfd = pidfd_open(pid, 0);
    int r = process.pidfd < 0 ? -errno : read_start(pid, &process.started);
    if (r == 0)
        r = process.pagemap_fd = open_proc(pid, "pagemap");
    if (r < 0) {
        process_close(&process);
        return error_set(error, -r, "open process %d", (int)pid);
    }
    *ret = process;
    return 0;
}

void process_close(struct process *process)
{
    process->pidfd = close_fd(process->pidfd);
    process->pagemap_fd = close_fd(process->pagemap_fd);
}

/* ---- mappings ---- */

static bool starts_with(const char *text, const char *prefix)
{
    return strncmp(text, prefix, strlen(prefix)) == 0;
}

static bool is_shared_memory(const char *name)
{
    static const char *const prefixes[] = { "/dev/zero", "/dev/shm/", "/memfd:", "/SYSV",
                                            "[anon_shmem:" };

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++)
        if (starts_with(name, prefixes[i]))
            return true;
    return false;
}

/* False for what holds no ordinary pages: [vdso], [vvar], devices, huge pages. */
static bool name_kind(const char *name, enum mapping_kind *ret)
{
    if (*name == '\0' || starts_with(name, "[anon:"))
        *ret = MAPPING_ANON;
    else if (strcmp(name, "[heap]") == 0)
        *ret = MAPPING_HEAP;
    else if (strcmp(name, "[stack]") == 0)
        *ret = MAPPING_STACK;
    else if (is_shared_memory(name))
        *ret = MAPPING_SHARED;
    else if (*name == '/' && !starts_with(name, "/dev/") && !starts_with(name, "/anon_hugepage"))
        *ret = MAPPING_FILE;
    else
        return false;
    return true;
}

/* "start-end perms offset device inode   name" */
static bool parse_mapping(char *line, struct mapping *ret)
{
    char perms[5];
    int name = 0;

    line[strcspn(line, "\n")] = '\0';
    if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %4s %*s %*s %*s %n", &ret->start, &ret->end, perms,
               &name) < 3 ||
        perms[0] != 'r')
        return false;
    return name > 0 && name_kind(line + name, &ret->kind);
}

int process_for_each_mapping(const struct process *process,
                             int (*callback)(const struct mapping *, void *), void *userdata,
                             struct error *error)
{
    int fd = open_proc(process->pid, "maps");
    FILE *file = fd < 0 ? NULL : fdopen(fd, "re");
    cleanup(free_p) char *line = NULL;
    size_t size = 0;
    int r = 0;

    if (!file) {
        close_fd(fd);
        return error_set(error, fd < 0 ? -fd : errno, "open maps of process %d", (int)process->pid);
    }
    while (r == 0 && getline(&line, &size, file) > 0) {
        struct mapping mapping;
        if (parse_mapping(line, &mapping))
            r = callback(&mapping, userdata);
    }
    fclose(file);
    return r;
}

/* ---- which pages ---- */

/* The runs found so far. */
struct runs {
    struct iovec *ranges;
    unsigned n, max;
    uint64_t bytes, max_bytes;
};

static bool is_full(const struct runs *runs)
{
    return runs->n == runs->max || runs->bytes >= runs->max_bytes;
}

static void add_run(struct runs *runs, uint64_t start, uint64_t end)
{
    struct iovec *last = runs->n ? &runs->ranges[runs->n - 1] : NULL;

    if (last && (uint64_t)(uintptr_t)last->iov_base + last->iov_len == start)
        last->iov_len += end - start;
    else
        runs->ranges[runs->n++] = (struct iovec){ (void *)(uintptr_t)start, end - start };
    runs->bytes += end - start;
}

static int scan_by_ioctl(int fd, enum page_state state, uint64_t *cursor, uint64_t end,
                         struct runs *runs)
{
    struct scan_region regions[PAGES_RANGES_MAX];
    uint64_t category = state == PAGE_SWAPPED ? SCAN_SWAPPED : SCAN_PRESENT;
    struct scan_arg arg = {
        .size = sizeof arg,
        .start = *cursor,
        .end = end,
        .vec = (uint64_t)(uintptr_t)regions,
        .vec_len = runs->max,
        .max_pages = runs->max_bytes / page_size(),
        .category_mask = category,
        .return_mask = category,
    };
    int n = ioctl(fd, SCAN_IOCTL, &arg);

    if (n < 0)
        return -errno;
    for (int i = 0; i < n; i++)
        add_run(runs, regions[i].start, regions[i].end);
    *cursor = arg.walk_end;
    return 0;
}

static int scan_by_read(int fd, enum page_state state, uint64_t *cursor, uint64_t end,
                        struct runs *runs)
{
    uint64_t entries[PAGEMAP_BATCH], size = page_size();
    uint64_t wanted = state == PAGE_SWAPPED ? PAGEMAP_SWAPPED : PAGEMAP_PRESENT;
    uint64_t n = (end - *cursor) / size;

    /* Not much more than will be used: the next call would read the rest again. */
    if (n > runs->max_bytes / size * 2)
        n = runs->max_bytes / size * 2;
    if (n > PAGEMAP_BATCH)
        n = PAGEMAP_BATCH;
    ssize_t got =
        pread(fd, entries, n * sizeof entries[0], (off_t)(*cursor / size * sizeof entries[0]));
    if (got <= 0)
        return got < 0 ? -errno : -ESRCH;
    for (uint64_t i = 0; i < (uint64_t)got / sizeof entries[0] && !is_full(runs); i++) {
        if (entries[i] & wanted)
            add_run(runs, *cursor, *cursor + size);
        *cursor += size;
    }
    return 0;
}

int process_scan(const struct process *process, enum page_state state, uint64_t *cursor,
                 uint64_t end, struct iovec *ranges, unsigned n, uint64_t max_bytes)
{
    struct runs runs = { .ranges = ranges,
                         .max = n < PAGES_RANGES_MAX ? n : PAGES_RANGES_MAX,
                         .max_bytes = max_bytes };
    int r = scan_by_ioctl(process->pagemap_fd, state, cursor, end, &runs);

    if (r == -ENOTTY || r == -EINVAL)
        r = scan_by_read(process->pagemap_fd, state, cursor, end, &runs);
    return r < 0 ? r : (int)runs.n;
}

/* ---- bring them in ---- */

/* How many of the ranges the kernel has come through when it reports so many bytes. */
static unsigned count_done(const struct iovec *ranges, unsigned n, uint64_t bytes)
{
    unsigned done = 0;

    while (done < n && ranges[done].iov_len <= bytes)
        bytes -= ranges[done++].iov_len;
    return done;
}

int process_ask(const struct process *process, struct iovec *ranges, unsigned n)
{
    unsigned done = 0;

    while (done < n) {
        ssize_t r = process_madvise(process->pidfd, ranges + done, n - done, MADV_WILLNEED, 0);
        if (r < 0 && errno == EINTR)
            continue;
        /* Mapped no longer, or of a kind that cannot be asked for. */
        if (r < 0 && errno != ENOMEM && errno != EBADF && errno != EIO)
            return -errno;
        done += count_done(ranges + done, n - done, r < 0 ? 0 : (uint64_t)r);
        /* It stops at the range with which something is wrong. */
        done += done < n;
    }
    return 0;
}

/* As many pages as one call of process_vm_readv takes. */
static int touch_pages(pid_t pid, struct iovec *pages, unsigned n)
{
    char byte[PAGES_RANGES_MAX];
    unsigned done = 0;

    while (done < n) {
        struct iovec into = { byte, n - done };
        ssize_t r = process_vm_readv(pid, &into, 1, pages + done, n - done, 0);
        if (r < 0 && errno != EFAULT)
            return -errno;
        done += r < 0 ? 1 : (unsigned)r + 1; /* it stops at a page that is mapped no longer */
    }
    return 0;
}

int process_touch(const struct process *process, const struct iovec *ranges, unsigned n)
{
    struct iovec pages[PAGES_RANGES_MAX];
    uint64_t size = page_size();
    unsigned filled = 0;
    int r = 0;

    for (unsigned i = 0; i < n && r == 0; i++)
        for (uint64_t at = 0; at < ranges[i].iov_len && r == 0; at += size) {
            pages[filled++] = (struct iovec){ (char *)ranges[i].iov_base + at, 1 };
            if (filled < PAGES_RANGES_MAX)
                continue;
            r = touch_pages(process->pid, pages, filled);
            filled = 0;
        }
    return r == 0 ? touch_pages(process->pid, pages, filled) : r;
}
