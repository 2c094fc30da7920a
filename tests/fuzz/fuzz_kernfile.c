/* What a kernel file may say: no text is read past its end, and what was understood is what was
 * written. The first line is a key and a word that are looked for in the rest. */
#include <inttypes.h>
#include <string.h>

#include "agent/kernfile.h"
#include "agent/layout.h"

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_value(const char *text)
{
    char again[32];
    uint64_t value, copy;

    if (kernfile_parse_value(text, &value) < 0)
        return;
    must(strchr(text, '\n') == NULL || strchr(text, '\n')[1] == '\0');
    snprintf(again, sizeof again, "%" PRIu64 "\n", value);
    must(kernfile_parse_value(again, &copy) == 0 && copy == value);
}

static void check_events(const char *text)
{
    struct kernfile_events events;

    if (kernfile_parse_events(text, &events) < 0)
        return;
    must(strstr(text, events.populated ? "populated " : "populated 0") != NULL);
    must(strstr(text, events.frozen ? "frozen " : "frozen 0") != NULL);
}

static void check_meminfo(const char *text)
{
    struct kernfile_meminfo info;

    if (kernfile_parse_meminfo(text, &info) < 0)
        return;
    must(info.mem_total % 1024 == 0 && info.swap_free % 1024 == 0);
    must(strstr(text, "SwapFree:") != NULL);
}

static void check_keys(const char *text, const char *key)
{
    uint64_t value;
    int r = kernfile_parse_key(text, key, &value);

    must(r == 0 || r == -ENOENT || r == -EBADMSG);
    must(r == -ENOENT || strstr(text, key) != NULL);
    if (kernfile_has_word(text, key))
        must(*key && strstr(text, key) != NULL);
}

/* Names come from the same place. */
static void check_names(const char *text)
{
    char id[CONTAINER_ID_SIZE];

    if (layout_check_uid(text) == NULL)
        must(strspn(text, "0123456789abcdef-") == strlen(text) && strlen(text) < POD_UID_SIZE);
    for (int systemd = 0; systemd < 2; systemd++)
        if (layout_container_id(systemd, text, id))
            must(*id && strlen(id) < sizeof id && strstr(text, id) != NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1); /* exactly: a read past the NUL is one past what is ours */

    must(text != NULL);
    memcpy(text, data, size);
    text[size] = '\0';
    check_value(text);
    check_events(text);
    check_meminfo(text);
    check_names(text);

    char *rest = strchr(text, '\n');
    if (rest) {
        *rest++ = '\0';
        check_value(rest);
        check_keys(rest, text);
    }
    free(text);
    return 0;
}
