#include "common/error.h"

#include <stdarg.h>
#include <string.h>

#include "common/utf8.h"

/* A reader may want valid UTF-8, so that a cut must not leave half a character. */
static size_t fit(const char *text, size_t room)
{
    size_t len = strlen(text);

    return len <= room ? len : utf8_cut(text, room);
}

/* Puts the sentence together: as much of the front as front_max allows, then of the back what still
 * fits. */
static void join(struct error *error, const char *front, size_t front_max, const char *back)
{
    size_t front_len = fit(front, front_max);
    size_t back_len = fit(back, sizeof(error->msg) - 1 - front_len);

    memcpy(error->msg, front, front_len);
    memcpy(error->msg + front_len, back, back_len);
    error->msg[front_len + back_len] = '\0';
}

int error_set(struct error *error, int err, const char *fmt, ...)
{
    char sentence[ERROR_MSG_SIZE + 1]; /* so that a cut shows */
    char reason[64] = "";
    char unknown[32];
    va_list args;

    if (!error)
        return err > 0 ? -err : -EIO;

    va_start(args, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, args);
    va_end(args);

    if (err > 0)
        snprintf(reason, sizeof(reason), ": %s", strerror_r(err, unknown, sizeof(unknown)));
    /* Of a sentence that is too long the reason is what one cannot guess. */
    join(error, sentence, sizeof(error->msg) - 1 - strlen(reason), reason);
    error->err = err;
    return err > 0 ? -err : -EIO;
}

int error_outcome(struct error *error, int outcome, const char *fmt, ...)
{
    char sentence[ERROR_MSG_SIZE + 1];
    va_list args;

    if (!error)
        return outcome;

    va_start(args, fmt);
    vsnprintf(sentence, sizeof(sentence), fmt, args);
    va_end(args);

    join(error, sentence, sizeof(error->msg) - 1, "");
    error->err = outcome < 0 ? -outcome : 0;
    return outcome;
}

int error_wrap(struct error *error, int r, const char *fmt, ...)
{
    char what[ERROR_MSG_SIZE + 1];
    char cause[ERROR_MSG_SIZE];
    va_list args;

    if (!error || r == 0)
        return r;

    va_start(args, fmt);
    vsnprintf(what, sizeof(what), fmt, args);
    va_end(args);

    size_t len = fit(what, sizeof(cause) - sizeof(": "));
    memcpy(what + len, ": ", sizeof(": "));
    memcpy(cause, error->msg, sizeof(cause));
    join(error, what, sizeof(error->msg) - 1, cause);
    return r;
}
