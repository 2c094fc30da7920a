#include "common/schema.h"

#include <assert.h>
#include <stdarg.h>
#include <string.h>

#include <jansson.h>

#include "common/utf8.h"

#define UINT_MAX_DEFAULT ((uint64_t)1 << 53)

/* Enough of a mistyped name to recognise it and of what the parser has to say, too little to
 * smuggle a page into somebody's log. */
#define QUOTE_MAX 64

struct quoted {
    char text[QUOTE_MAX * 4 + sizeof("...")];
};

static struct quoted quote(const char *text)
{
    struct quoted quoted;
    char *end = quoted.text;
    size_t len = strnlen(text, QUOTE_MAX + 1);

    for (size_t i = 0; i < len && i < QUOTE_MAX; i++) {
        unsigned char c = (unsigned char)text[i];

        if (c >= ' ' && c <= '~' && c != '\\')
            *end++ = (char)c;
        else
            end += sprintf(end, "\\x%02x", c);
    }
    strcpy(end, len > QUOTE_MAX ? "..." : "");
    return quoted;
}

static int wrong(struct error *error, const struct schema_field *field, const char *fmt, ...)
    PRINTF(3, 4);

static int wrong(struct error *error, const struct schema_field *field, const char *fmt, ...)
{
    char what[ERROR_MSG_SIZE];
    va_list args;

    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);
    return error_outcome(error, SCHEMA_E_FIELD, "field \"%s\": %s", field->name, what);
}

static void *at(void *out, size_t offset)
{
    return (char *)out + offset;
}

static uint64_t uint_max(const struct schema_field *field)
{
    return field->max ? field->max : UINT_MAX_DEFAULT;
}

static int wrong_uint(struct error *error, const struct schema_field *field)
{
    return wrong(error, field, "must be a whole number from 0 to %ju", (uintmax_t)uint_max(field));
}

/* ---- what a field takes, once its value is a C value ---- */

static bool is_utf8(const char *text, size_t len)
{
    while (len > 0) {
        size_t n = utf8_character(text, len);
        if (n == 0)
            return false;
        text += n;
        len -= n;
    }
    return true;
}

static int put_string(const struct schema_field *field, const char *value, size_t len, void *out,
                      struct error *error)
{
    if (strlen(value) != len)
        return wrong(error, field, "holds a NUL");
    if (len >= field->size)
        return wrong(error, field, "must be at most %zu bytes long", field->size - 1);
    if (!is_utf8(value, len))
        return wrong(error, field, "is not UTF-8");

    const char *complaint = field->check ? field->check(value) : NULL;
    if (complaint)
        return wrong(error, field, "%s", complaint);

    memcpy(at(out, field->offset), value, len + 1);
    return 0;
}

static int put_enum(const struct schema_field *field, const char *value, void *out,
                    struct error *error)
{
    char choices[ERROR_MSG_SIZE] = "";
    size_t len = 0;

    for (int i = 0; field->names[i]; i++) {
        if (value && !strcmp(field->names[i], value)) {
            *(int *)at(out, field->offset) = i;
            return 0;
        }
        if (len < sizeof(choices))
            len += (size_t)snprintf(choices + len, sizeof(choices) - len, "%s%s", i ? ", " : "",
                                    field->names[i]);
    }
    return wrong(error, field, "must be one of %s", choices);
}

static int put_uint(const struct schema_field *field, uint64_t value, void *out,
                    struct error *error)
{
    if (value > uint_max(field))
        return wrong_uint(error, field);
    *(uint64_t *)at(out, field->offset) = value;
    return 0;
}

static int put_bool(const struct schema_field *field, bool value, void *out)
{
    *(bool *)at(out, field->offset) = value;
    return 0;
}

static void mark_present(const struct schema_field *field, void *out)
{
    if (field->present_offset)
        *(bool *)at(out, field->present_offset) = true;
}

static int unknown(const char *name, struct error *error)
{
    return error_outcome(error, SCHEMA_E_FIELD, "field \"%s\": unknown", quote(name).text);
}

int schema_find(const struct schema_field *fields, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(fields[i].name, name))
            return (int)i;
    return -1;
}

int schema_check_required(const struct schema_field *fields, size_t n, uint64_t seen,
                          struct error *error)
{
    assert(n <= SCHEMA_FIELDS_MAX);

    for (size_t i = 0; i < n; i++)
        if (fields[i].required && !(seen & (uint64_t)1 << i))
            return wrong(error, &fields[i], "is missing");
    return 0;
}

/* ---- JSON ---- */

/* jansson parses by recursion and stops only at 2048 levels; what we take is known before. */
static bool too_deep(const char *text, size_t len)
{
    unsigned depth = 0;
    bool in_string = false;

    for (size_t i = 0; i < len; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > SCHEMA_MAX_DEPTH)
                return true;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return false;
}

static int decode_member(const struct schema_field *field, const json_t *value, void *out,
                         struct error *error)
{
    switch (field->type) {
    case SCHEMA_STRING:
        if (!json_is_string(value))
            return wrong(error, field, "must be a string");
        return put_string(field, json_string_value(value), json_string_length(value), out, error);
    case SCHEMA_ENUM:
        return put_enum(field, json_string_value(value), out, error);
    case SCHEMA_UINT:
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return wrong_uint(error, field);
        return put_uint(field, (uint64_t)json_integer_value(value), out, error);
    case SCHEMA_BOOL:
        if (!json_is_boolean(value))
            return wrong(error, field, "must be true or false");
        return put_bool(field, json_is_true(value), out);
    }
    return wrong(error, field, "has no type");
}

static int decode_members(const struct schema_field *fields, size_t n, json_t *object, void *out,
                          struct error *error)
{
    uint64_t seen = 0;
    const char *name;
    json_t *value;

    json_object_foreach(object, name, value)
    {
        int i = schema_find(fields, n, name);
        if (i < 0)
            return unknown(name, error);

        int r = decode_member(&fields[i], value, out, error);
        if (r)
            return r;
        mark_present(&fields[i], out);
        seen |= (uint64_t)1 << i;
    }
    return schema_check_required(fields, n, seen, error);
}

static void decref_p(json_t **json)
{
    json_decref(*json);
}

int schema_decode_json(const struct schema_field *fields, size_t n, const char *text, size_t len,
                       void *out, struct error *error)
{
    json_error_t reason;

    assert(n <= SCHEMA_FIELDS_MAX);
    if (too_deep(text, len))
        return error_outcome(error, SCHEMA_E_SYNTAX, "JSON is nested deeper than %d",
                             SCHEMA_MAX_DEPTH);

    cleanup(decref_p) json_t *json = json_loadb(text, len, JSON_REJECT_DUPLICATES, &reason);
    if (!json && json_error_code(&reason) == json_error_out_of_memory)
        return error_set(error, ENOMEM, "parse JSON");
    if (!json)
        return error_outcome(error, SCHEMA_E_SYNTAX, "not JSON: line %d, column %d: %s",
                             reason.line, reason.column, quote(reason.text).text);
    if (!json_is_object(json))
        return error_outcome(error, SCHEMA_E_SYNTAX, "a JSON object is expected");
    return decode_members(fields, n, json, out, error);
}

/* ---- query ---- */

/* Not strtoull alone: it takes blanks and signs. */
static bool parse_uint(const char *text, uint64_t *ret)
{
    char *end;

    if (text[0] < '0' || text[0] > '9')
        return false;
    errno = 0;
    *ret = strtoull(text, &end, 10);
    return errno == 0 && *end == '\0';
}

static int decode_value(const struct schema_field *field, const char *value, void *out,
                        struct error *error)
{
    uint64_t number;

    switch (field->type) {
    case SCHEMA_STRING:
        return put_string(field, value, strlen(value), out, error);
    case SCHEMA_ENUM:
        return put_enum(field, value, out, error);
    case SCHEMA_UINT:
        if (!parse_uint(value, &number))
            return wrong_uint(error, field);
        return put_uint(field, number, out, error);
    case SCHEMA_BOOL:
        if (!strcmp(value, "true") || !strcmp(value, "false"))
            return put_bool(field, value[0] == 't', out);
        return wrong(error, field, "must be true or false");
    }
    return wrong(error, field, "has no type");
}

int schema_decode_pair(const struct schema_field *fields, size_t n, const char *name,
                       const char *value, void *out, struct error *error)
{
    int i = schema_find(fields, n, name);
    if (i < 0)
        return unknown(name, error);
    if (!value && fields[i].type != SCHEMA_BOOL)
        return wrong(error, &fields[i], "has no value");

    int r = decode_value(&fields[i], value ? value : "true", out, error);
    if (r == 0)
        mark_present(&fields[i], out);
    return r;
}
