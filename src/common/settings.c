#include "common/settings.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

/* The sentence says it all, "Invalid argument" would add nothing. */
#define refuse(error, ...) error_outcome(error, -EINVAL, __VA_ARGS__)

#define HELP_WIDTH      80
#define HELP_COLUMN_MAX 32 /* a longer option has its help below it */

/* ---- numbers and their units ---- */

struct unit {
    const char *name;
    uint64_t factor;
};

/* The largest first. */
static const struct unit duration_units[] = {
    { "h", 3600 * USEC_PER_SEC },
    { "m", 60 * USEC_PER_SEC },
    { "s", USEC_PER_SEC },
    { "ms", USEC_PER_MSEC },
    { "us", 1 },
    { NULL, 0 },
};
static const struct unit size_units[] = {
    { "T", (uint64_t)1 << 40 },
    { "G", (uint64_t)1 << 30 },
    { "M", (uint64_t)1 << 20 },
    { "K", (uint64_t)1 << 10 },
    { "", 1 },
    { NULL, 0 },
};
static const struct unit plain_units[] = { { "", 1 }, { NULL, 0 } };

/* Digits only: strtoull(3) would also take "-1", " 1" and "+1". Returns where they end, NULL when
 * there are none or too many. */
static const char *parse_digits(const char *text, uint64_t *ret)
{
    uint64_t value = 0;

    if (!isdigit((unsigned char)*text))
        return NULL;
    for (; isdigit((unsigned char)*text); text++)
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return NULL;
    *ret = value;
    return text;
}

static int parse_scaled(const char *text, const struct unit *units, const char *what, uint64_t *ret,
                        struct error *error)
{
    uint64_t value;
    const char *rest = parse_digits(text, &value);

    for (; rest && units->name; units++) {
        if (strcmp(rest, units->name) != 0)
            continue;
        if (__builtin_mul_overflow(value, units->factor, &value))
            break;
        *ret = value;
        return 0;
    }
    return refuse(error, "'%s' is not %s", text, what);
}

int settings_parse_duration(const char *text, uint64_t *ret_usec, struct error *error)
{
    return parse_scaled(text, duration_units, "a duration like 500ms, 2s, 1m or 1h", ret_usec,
                        error);
}

int settings_parse_size(const char *text, uint64_t *ret_bytes, struct error *error)
{
    return parse_scaled(text, size_units, "a size like 64K, 16M, 1G or plain bytes", ret_bytes,
                        error);
}

static const struct unit *units_of(enum setting_type type)
{
    return type == SETTING_DURATION ? duration_units
           : type == SETTING_SIZE   ? size_units
                                    : plain_units;
}

/* In the largest unit that leaves nothing over: 90000000 is "90s". */
static void format_scaled(char *buffer, size_t size, const struct unit *units, uint64_t value)
{
    while (units[1].name && (value == 0 || value % units->factor != 0))
        units++;
    snprintf(buffer, size, "%ju%s", (uintmax_t)(value / units->factor), units->name);
}

/* "1 to 64", "at least 10ms", "at most 1G"; empty when anything goes. */
static void format_range(char *buffer, size_t size, const struct setting *setting)
{
    const struct unit *units = units_of(setting->type);
    char min[32], max[32];

    format_scaled(min, sizeof(min), units, setting->min);
    format_scaled(max, sizeof(max), units, setting->max);
    *buffer = '\0';
    if (setting->min > 0 && setting->max > 0)
        snprintf(buffer, size, "%s to %s", min, max);
    else if (setting->max > 0)
        snprintf(buffer, size, "at most %s", max);
    else if (setting->min > 0)
        snprintf(buffer, size, "at least %s", min);
}

/* ---- one parser for each type ---- */

static int parse_bool(const char *text, bool *ret, struct error *error)
{
    static const char *const words[] = { "0", "1", "false", "true", "no", "yes" };

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            *ret = i % 2;
            return 0;
        }
    }
    return refuse(error, "'%s' is not 1, 0, true, false, yes or no", text);
}

static int parse_enum(const struct setting *setting, const char *text, int *ret,
                      struct error *error)
{
    char names[128] = "";

    for (int i = 0; setting->names[i]; i++) {
        if (strcmp(text, setting->names[i]) == 0) {
            *ret = i;
            return 0;
        }
        size_t len = strlen(names);
        snprintf(names + len, sizeof(names) - len, "%s%s", i > 0 ? ", " : "", setting->names[i]);
    }
    return refuse(error, "'%s' is none of %s", text, names);
}

static int parse_number(const struct setting *setting, const char *text, uint64_t *ret,
                        struct error *error)
{
    uint64_t value;
    char range[80];
    int r;

    if (setting->type == SETTING_DURATION)
        r = settings_parse_duration(text, &value, error);
    else if (setting->type == SETTING_SIZE)
        r = settings_parse_size(text, &value, error);
    else
        r = parse_scaled(text, plain_units, "a number", &value, error);
    if (r < 0)
        return r;

    if (value < setting->min || (setting->max > 0 && value > setting->max)) {
        format_range(range, sizeof(range), setting);
        return refuse(error, "%s is not %s", text, range);
    }
    *ret = value;
    return 0;
}

static int append(struct setting_list *list, const char *text, size_t len, struct error *error)
{
    if (list->n == SETTING_LIST_MAX)
        return refuse(error, "more than %d values", SETTING_LIST_MAX);
    if (len == 0)
        return refuse(error, "an empty value");
    list->items[list->n] = strndup(text, len);
    if (!list->items[list->n])
        return error_set(error, ENOMEM, "copy '%s'", text);
    list->n++;
    return 0;
}

/* Empty text is an empty list, which turns a default off. */
static int append_separated(struct setting_list *list, const char *text, struct error *error)
{
    int r = 0;

    if (!*text)
        return 0;
    for (;;) {
        size_t len = strcspn(text, ",");
        r = append(list, text, len, error);
        if (r < 0 || !text[len])
            return r;
        text += len + 1;
    }
}

static int store(const struct setting *setting, const char *text, void *out, struct error *error)
{
    void *field = (char *)out + setting->offset;

    switch (setting->type) {
    case SETTING_STRING:
        *(const char **)field = text;
        return 0;
    case SETTING_STRINGS:
        return append(field, text, strlen(text), error);
    case SETTING_BOOL:
        return parse_bool(text, field, error);
    case SETTING_ENUM:
        return parse_enum(setting, text, field, error);
    case SETTING_UINT:
    case SETTING_DURATION:
    case SETTING_SIZE:
        return parse_number(setting, text, field, error);
    }
    return refuse(error, "unknown type %d", setting->type);
}

/* ---- environment and defaults ---- */

/* --cgroup-root of FREEZE_AGENT is FREEZE_AGENT_CGROUP_ROOT. */
static void format_variable(char *buffer, size_t size, const struct settings_program *program,
                            const struct setting *setting)
{
    snprintf(buffer, size, "%s_%s", program->env_prefix, setting->flag);
    for (char *c = buffer + strlen(program->env_prefix); c < buffer + size && *c; c++)
        *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

/* Takes the setting's value from where it is given next, after the command line. */
static int store_unset(const struct settings_program *program, const struct setting *setting,
                       void *out, struct error *error)
{
    char variable[128];
    int r;

    format_variable(variable, sizeof(variable), program, setting);
    const char *text = getenv(variable);
    if (text && setting->type == SETTING_STRINGS)
        r = append_separated((void *)((char *)out + setting->offset), text, error);
    else if (text)
        r = store(setting, text, out, error);
    else if (setting->fallback)
        return error_wrap(error, store(setting, setting->fallback, out, error), "default of --%s",
                          setting->flag);
    else
        return 0;
    return error_wrap(error, r, "%s", variable);
}

/* ---- help ---- */

/* Characters, as far as ours go: bytes that do not continue one. */
static size_t width(const char *text, size_t len)
{
    size_t n = 0;

    for (size_t i = 0; i < len; i++)
        n += ((unsigned char)text[i] & 0xc0) != 0x80;
    return n;
}

/* A tab in a word is a blank that does not end it. */
static void write_word(FILE *out, const char *word, size_t len)
{
    for (size_t i = 0; i < len; i++)
        fputc(word[i] == '\t' ? ' ' : word[i], out);
}

/* Writes words into the columns from `indent` to HELP_WIDTH; the cursor stands at `column`. */
static void write_wrapped(FILE *out, const char *text, size_t column, size_t indent)
{
    bool first = true;

    if (column > indent) {
        fputc('\n', out);
        column = 0;
    }
    fprintf(out, "%*s", (int)(indent - column), "");
    column = indent;
    while (*(text += strspn(text, " "))) {
        size_t len = strcspn(text, " ");
        size_t cells = width(text, len);

        if (!first && column + 1 + cells > HELP_WIDTH) {
            fprintf(out, "\n%*s", (int)indent, "");
            column = indent;
            first = true;
        }
        fputs(first ? "" : " ", out);
        write_word(out, text, len);
        column += cells + !first;
        first = false;
        text += len;
    }
    fputc('\n', out);
}

/* "--listen ADDRESS" */
static void format_option(char *buffer, size_t size, const struct setting *setting)
{
    snprintf(buffer, size, "--%s%s%s", setting->flag, setting->metavar ? " " : "",
             setting->metavar ? setting->metavar : "");
}

static void write_help_line(FILE *out, const char *option, const char *text, size_t indent)
{
    int n = fprintf(out, "  %s", option);

    /* Two blanks at least between the columns. */
    write_wrapped(out, text, (size_t)n + 2 > indent ? indent + 1 : (size_t)n, indent);
}

/* The names of an enum, or the range of a number. */
static void write_values(FILE *out, const struct setting *setting)
{
    char range[80] = "";

    if (setting->type == SETTING_ENUM)
        for (int i = 0; setting->names[i]; i++)
            fprintf(out, "%s%s", i == 0 ? " One of " : ", ", setting->names[i]);
    else if (setting->min > 0 || setting->max > 0)
        format_range(range, sizeof(range), setting);

    if (*range)
        fprintf(out, " %c%s", toupper((unsigned char)*range), range + 1);
    if (*range || setting->type == SETTING_ENUM)
        fputc('.', out);
    if (setting->type == SETTING_STRINGS)
        fputs(" May be given more than once.", out);
}

static char *describe(const struct settings_program *program, const struct setting *setting)
{
    char variable[128];
    char *text = NULL;
    size_t len;

    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    format_variable(variable, sizeof(variable), program, setting);
    fputs(setting->help, out);
    write_values(out, setting);
    if (setting->fallback)
        fprintf(out, " [default:\t%s]", setting->fallback);
    fprintf(out, " [env:\t%s]", variable);
    fclose(out);
    return text;
}

static size_t find_indent(const struct settings_program *program)
{
    size_t widest = strlen("--version");

    for (unsigned i = 0; i < program->n; i++) {
        char option[128];

        format_option(option, sizeof(option), &program->table[i]);
        if (strlen(option) > widest && strlen(option) + 4 <= HELP_COLUMN_MAX)
            widest = strlen(option);
    }
    return widest + 4;
}

static void write_help(FILE *out, const struct settings_program *program)
{
    size_t indent = find_indent(program);

    fprintf(out, "Usage: %s [OPTION]...\n", program->name);
    write_wrapped(out, program->synopsis, 0, 0);
    fputc('\n', out);
    for (unsigned i = 0; i < program->n; i++) {
        char option[128];
        cleanup(free_p) char *text = describe(program, &program->table[i]);

        format_option(option, sizeof(option), &program->table[i]);
        write_help_line(out, option, text ? text : program->table[i].help, indent);
    }
    write_help_line(out, "--help", "Print this and exit.", indent);
    write_help_line(out, "--version", "Print the version and exit.", indent);
}

static void write_cell(FILE *out, const char *text)
{
    for (; *text; text++)
        fprintf(out, "%s%c", *text == '|' ? "\\" : "", *text);
}

static void write_markdown_row(FILE *out, const struct settings_program *program,
                               const struct setting *setting)
{
    char option[128], variable[128];

    format_option(option, sizeof(option), setting);
    format_variable(variable, sizeof(variable), program, setting);
    fputs("| `", out);
    write_cell(out, option);
    fprintf(out, "` | `%s` | ", variable);
    if (setting->fallback) {
        fputc('`', out);
        write_cell(out, setting->fallback);
        fputs("` ", out);
    }
    fputs("| ", out);
    write_cell(out, setting->help);
    write_values(out, setting);
    fputs(" |\n", out);
}

static void write_markdown(FILE *out, const struct settings_program *program)
{
    fputs("| Option | Environment | Default | Meaning |\n|---|---|---|---|\n", out);
    for (unsigned i = 0; i < program->n; i++)
        write_markdown_row(out, program, &program->table[i]);
}

/* ---- command line ---- */

/* Does what --help and its like ask for; 0 when the argument is none of them. */
static int answer(const struct settings_program *program, const char *arg)
{
    int r = 0;

    if (strcmp(arg, "--help") == 0) {
        write_help(stdout, program);
        r = SETTINGS_E_HELP;
    } else if (strcmp(arg, "--help-markdown") == 0) {
        write_markdown(stdout, program);
        r = SETTINGS_E_HELP;
    } else if (strcmp(arg, "--version") == 0) {
        printf("%s %s\n", program->name, program->version);
        r = SETTINGS_E_VERSION;
    }
    return r;
}

/* Exactly: an abbreviation that works today is ambiguous with tomorrow's option. */
static const struct setting *find(const struct settings_program *program, const char *flag,
                                  size_t len)
{
    for (unsigned i = 0; i < program->n; i++)
        if (strlen(program->table[i].flag) == len && memcmp(program->table[i].flag, flag, len) == 0)
            return &program->table[i];
    return NULL;
}

/* Parses the option at argv[*i] and moves *i to its last word. */
static int parse_option(const struct settings_program *program, char **argv, int *i, bool *given,
                        void *out, struct error *error)
{
    const char *flag = argv[*i] + 2;
    size_t len = strcspn(flag, "=");
    const char *value = flag[len] ? flag + len + 1 : NULL;

    const struct setting *setting = find(program, flag, len);
    if (!setting)
        return refuse(error, "unknown option --%.*s, see --help", (int)len, flag);

    if (setting->type == SETTING_BOOL && value)
        return refuse(error, "--%s takes no value", setting->flag);
    if (setting->type == SETTING_BOOL)
        value = "1";
    else if (!value)
        value = argv[++*i];
    /* A value that begins like an option is more often a value forgotten; --flag=--value works. */
    if (!value || (value == argv[*i] && strncmp(value, "--", 2) == 0))
        return refuse(error, "--%s needs a value", setting->flag);

    given[setting - program->table] = true;
    return error_wrap(error, store(setting, value, out, error), "--%s", setting->flag);
}

static int parse_arguments(const struct settings_program *program, int argc, char **argv,
                           bool *given, void *out, struct error *error)
{
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] != '-' || !argv[i][1])
            return refuse(error, "unexpected argument '%s', see --help", argv[i]);
        if (argv[i][1] != '-' || !argv[i][2])
            return refuse(error, "unknown option %s, see --help", argv[i]);

        int r = answer(program, argv[i]);
        if (r == 0)
            r = parse_option(program, argv, &i, given, out, error);
        if (r != 0)
            return r;
    }
    return 0;
}

/* The command line comes first, so that each source fills only what the one before left open. */
static int parse_all(const struct settings_program *program, int argc, char **argv, void *out,
                     struct error *error)
{
    cleanup(free_p) bool *given = calloc(program->n + 1, sizeof(*given));
    if (!given)
        return error_set(error, ENOMEM, "settings");

    int r = parse_arguments(program, argc, argv, given, out, error);
    for (unsigned i = 0; r == 0 && i < program->n; i++)
        if (!given[i])
            r = store_unset(program, &program->table[i], out, error);
    return r;
}

int settings_parse(const struct settings_program *program, int argc, char **argv, void *out,
                   struct error *error)
{
    int r = parse_all(program, argc, argv, out, error);
    if (r != 0)
        settings_free(program, out);
    return r;
}

void settings_free(const struct settings_program *program, void *out)
{
    for (unsigned i = 0; i < program->n; i++) {
        if (program->table[i].type != SETTING_STRINGS)
            continue;
        struct setting_list *list = (void *)((char *)out + program->table[i].offset);
        while (list->n > 0)
            free(list->items[--list->n]);
    }
}
