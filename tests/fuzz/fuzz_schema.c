/* What a caller sends, as JSON and as pairs of a query: nothing that is decoded may break its own
 * rules, and no sentence may carry what a terminal or a log would act on. */
#include <string.h>

#include "common/schema.h"

struct out {
    char before[8];
    char text[16];
    char after[8];
    int choice;
    uint64_t number;
    bool has_number;
    bool flag;
};

static const char *const names[] = { "wait", "background", "off", NULL };

static const char *check(const char *value)
{
    return strchr(value, '/') ? "is not a name" : NULL;
}

static const struct schema_field fields[] = {
    { .name = "text",
      .type = SCHEMA_STRING,
      .offset = offsetof(struct out, text),
      .size = sizeof(((struct out *)0)->text),
      .required = true,
      .check = check },
    { .name = "choice",
      .type = SCHEMA_ENUM,
      .offset = offsetof(struct out, choice),
      .names = names },
    { .name = "number",
      .type = SCHEMA_UINT,
      .offset = offsetof(struct out, number),
      .max = 1000,
      .present_offset = offsetof(struct out, has_number) },
    { .name = "flag", .type = SCHEMA_BOOL, .offset = offsetof(struct out, flag) },
};

static void must(bool holds)
{
    if (!holds)
        abort();
}

static void check_outcome(int r, const struct out *out, const struct error *error)
{
    static const char zeroes[8];

    must(!memcmp(out->before, zeroes, sizeof(zeroes)) &&
         !memcmp(out->after, zeroes, sizeof(zeroes)));
    must(r == 0 || r == SCHEMA_E_SYNTAX || r == SCHEMA_E_FIELD);
    must((r == 0) == (error->msg[0] == '\0'));
    for (const char *p = error->msg; *p; p++)
        must(*p >= ' ' && *p <= '~');
    if (r)
        return;
    must(strnlen(out->text, sizeof(out->text)) < sizeof(out->text) && !strchr(out->text, '/'));
    must(out->choice >= 0 && out->choice < 3);
    must(out->number <= 1000 && (out->has_number || out->number == 0));
}

static void decode_json(const char *data, size_t size)
{
    struct out out = { 0 };
    struct error error = ERROR_INIT;

    int r = schema_decode_json(fields, ARRAY_SIZE(fields), data, size, &out, &error);
    check_outcome(r, &out, &error);
}

/* The first line is the name, the rest the value. */
static void decode_pair(const char *data, size_t size)
{
    struct out out = { 0 };
    struct error error = ERROR_INIT;
    cleanup(free_p) char *name = strndup(data, size);

    must(name);
    char *value = strchr(name, '\n');
    if (value)
        *value++ = '\0';
    int r = schema_decode_pair(fields, ARRAY_SIZE(fields), name, value, &out, &error);
    check_outcome(r, &out, &error);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode_json((const char *)data, size);
    decode_pair((const char *)data, size);
    return 0;
}
