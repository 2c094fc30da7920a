/* What a caller may send, declared: a table of fields, decoded into a plain struct.
 *
 * A handler gets a filled struct, never JSON. Everything that is not in the table is refused by
 * name: an unknown field, a missing one, a wrong type, a value out of range, a string that is too
 * long or holds a NUL or is not UTF-8, a key that comes twice, a body that is no object, nesting
 * beyond SCHEMA_MAX_DEPTH. The sentence says `field "reclaim": must be one of wait, background,
 * off`; what the caller sent enters it cut short and with everything unprintable escaped. */
#pragma once

#include <stdbool.h>

#include "common/error.h"

#define SCHEMA_MAX_DEPTH                                                                           \
    8 /* we ask for flat objects; deeper text is refused before it is parsed                       \
       */

enum schema_type {
    SCHEMA_STRING, /* char[size], NUL-terminated */
    SCHEMA_ENUM,   /* int: index into names */
    SCHEMA_UINT,   /* uint64_t, 0..max (0: 2^53, what JSON numbers hold exactly; RFC 8259, 6) */
    SCHEMA_BOOL,   /* bool */
};

struct schema_field {
    const char *name;
    enum schema_type type;
    size_t offset;
    size_t size;              /* STRING: of the buffer, NUL included */
    const char *const *names; /* ENUM, NULL-terminated */
    uint64_t max;             /* UINT */
    bool required;
    size_t present_offset; /* of a bool that is set when the field was there; 0: none */
    /* STRING: NULL or a check; returns NULL, or what is wrong ("is not a pod UID"). */
    const char *(*check)(const char *value);
};

enum schema_outcome {
    SCHEMA_E_SYNTAX = 1, /* not JSON, or no object, or too deep */
    SCHEMA_E_FIELD,      /* a field is unknown, missing, or its value will not do */
};

/* Decodes a JSON object. `out` keeps its defaults where a field is absent; on failure it may be
 * half filled and must not be used. */
int schema_decode_json(const struct schema_field *fields, size_t n, const char *text, size_t len,
                       void *out, struct error *error) MUST_CHECK;

/* Decodes one name=value pair of a query string (already unescaped). value NULL: "?name", which is
 * true for a BOOL and refused for the others. */
int schema_decode_pair(const struct schema_field *fields, size_t n, const char *name,
                       const char *value, void *out, struct error *error) MUST_CHECK;

/* The field's index, or -1: for a caller that keeps a bitmap of the pairs it has seen. A table has
 * at most SCHEMA_FIELDS_MAX fields. */
#define SCHEMA_FIELDS_MAX 64
int schema_find(const struct schema_field *fields, size_t n, const char *name);

/* After the last pair: are the required ones there? `seen` has bit i set for field i. */
int schema_check_required(const struct schema_field *fields, size_t n, uint64_t seen,
                          struct error *error) MUST_CHECK;
