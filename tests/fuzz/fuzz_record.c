/* A record, as it is found on disk and, since no fuzzer guesses a checksum, with one that is right:
 * what can be read can be written again, and is then the same. */
#include <inttypes.h>
#include <string.h>

#include "agent/layout.h"
#include "agent/record.h"

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_content(const struct record *record)
{
    must(layout_check_uid(record->pod_uid) == NULL);
    must(record->n_containers >= 1 && record->n_containers <= POD_CONTAINERS_MAX);
    for (unsigned i = 0; i < record->n_containers; i++) {
        const struct record_container *container = &record->containers[i];
        must(container->n_groups >= 1 && container->n_groups <= CONTAINER_GROUPS_MAX);
        must(*container->cgroup != '/');
        for (unsigned k = 0; k < container->n_groups; k++)
            must(container->groups[k].path[0] != '/');
    }
}

static void check_stability(const struct record *record)
{
    char *text = NULL, *again = NULL;
    size_t len = 0, again_len = 0;
    struct record copy;

    int r = record_encode(record, &text, &len, NULL);
    if (r == -EFBIG) /* escapes may make it longer than it was */
        return;
    must(r == 0);
    must(record_decode(text, len, &copy, NULL) == 0);
    must(record_encode(&copy, &again, &again_len, NULL) == 0);
    must(len == again_len && memcmp(text, again, len) == 0);
    record_clear(&copy);
    free(text);
    free(again);
}

static void check(const char *text, size_t len)
{
    struct record record = { 0 };
    struct error error = ERROR_INIT;
    int r = record_decode(text, len, &record, &error);

    must(r == 0 || r == RECORD_E_CORRUPT || r == RECORD_E_VERSION);
    must((r == 0) == (*error.msg == '\0'));
    if (r == 0) {
        check_content(&record);
        check_stability(&record);
        record_clear(&record);
    }
}

/* FNV-1a, as the record's header has it. */
static void check_framed(const uint8_t *line, size_t size)
{
    uint64_t hash = 0xcbf29ce484222325;
    char *text = malloc(size + 19);

    must(text != NULL);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ line[i]) * 0x100000001b3;
    memcpy(text, line, size);
    snprintf(text + size, 19, "\n%016" PRIx64 "\n", hash);
    check(text, size + 18);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    check((const char *)data, size);
    check_framed(data, size);
    return 0;
}
