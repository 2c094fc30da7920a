#include "agent/kernfile.h"

#include <fcntl.h>
#include <string.h>

/* Reads decimal digits up to `end_chars`; the kernel prints neither sign nor leading space. */
static int parse_digits(const char *text, const char *end_chars, uint64_t *ret)
{
    uint64_t value = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++)
        if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*p - '0'), &value))
            return -EBADMSG;
    if (p == text || (*p && !strchr(end_chars, *p)))
        return -EBADMSG;
    *ret = value;
    return 0;
}

/* Where the value of `key` begins: the key stands at the start of a line, followed by `separator`.
 */
static const char *find_key(const char *text, const char *key, char separator)
{
    size_t len = strlen(key);

    while (text && *text) {
        if (strncmp(text, key, len) == 0 && text[len] == separator)
            return text + len + 1;
        text = strchr(text, '\n');
        if (text)
            text++;
    }
    return NULL;
}

int kernfile_parse_key(const char *text, const char *key, uint64_t *ret)
{
    const char *value = find_key(text, key, ' ');

    return value ? parse_digits(value, "\n", ret) : -ENOENT;
}

static int parse_flag(const char *text, const char *key, bool *ret)
{
    uint64_t value;
    int r = kernfile_parse_key(text, key, &value);

    if (r < 0 || value > 1)
        return -EBADMSG;
    *ret = value;
    return 0;
}

int kernfile_parse_events(const char *text, struct kernfile_events *ret)
{
    struct kernfile_events events;

    if (parse_flag(text, "populated", &events.populated) < 0 ||
        parse_flag(text, "frozen", &events.frozen) < 0)
        return -EBADMSG;
    *ret = events;
    return 0;
}

int kernfile_parse_value(const char *text, uint64_t *ret)
{
    const char *newline = strchr(text, '\n');

    if (newline && newline[1])
        return -EBADMSG;
    if (strcmp(text, "max") == 0 || strcmp(text, "max\n") == 0) {
        *ret = KERNFILE_MAX;
        return 0;
    }
    return parse_digits(text, "\n", ret);
}

static int parse_meminfo_line(const char *text, const char *key, uint64_t *ret)
{
    const char *value = find_key(text, key, ':');
    uint64_t kib;

    if (!value || parse_digits(value + strspn(value, " "), " \n", &kib) < 0 ||
        __builtin_mul_overflow(kib, (uint64_t)1024, ret))
        return -EBADMSG;
    return 0;
}

int kernfile_parse_meminfo(const char *text, struct kernfile_meminfo *ret)
{
    struct kernfile_meminfo info;

    if (parse_meminfo_line(text, "MemTotal", &info.mem_total) < 0 ||
        parse_meminfo_line(text, "MemAvailable", &info.mem_available) < 0 ||
        parse_meminfo_line(text, "SwapTotal", &info.swap_total) < 0 ||
        parse_meminfo_line(text, "SwapFree", &info.swap_free) < 0)
        return -EBADMSG;
    *ret = info;
    return 0;
}

int kernfile_read_meminfo(struct kernfile_meminfo *ret)
{
    char text[8192];
    cleanup(close_p) int fd = open("/proc/meminfo", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);

    if (n < 0)
        return -errno;
    text[n] = '\0';
    return kernfile_parse_meminfo(text, ret);
}

bool kernfile_has_word(const char *text, const char *word)
{
    size_t len = strlen(word);

    while (*text) {
        text += strspn(text, " \n");
        size_t n = strcspn(text, " \n");
        if (n == len && strncmp(text, word, n) == 0)
            return n > 0;
        text += n;
    }
    return false;
}
