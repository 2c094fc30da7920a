/* hog MB: holds that much anonymous memory that does not compress. Prints "<checksum> <ms>" when it
 * is filled, and again for every line on its stdin, after having read all of it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now_msec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* xorshift64 */
static uint64_t next(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static void fill(uint64_t *words, size_t n)
{
    uint64_t state = 88172645463325252u;

    for (size_t i = 0; i < n; i++)
        words[i] = next(&state);
}

static void report(const uint64_t *words, size_t n)
{
    double start = now_msec();
    uint64_t sum = 0;

    for (size_t i = 0; i < n; i++)
        sum = sum * 31 + words[i];
    printf("%016" PRIx64 " %.3f\n", sum, now_msec() - start);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    size_t n = (size_t)(argc > 1 ? strtoul(argv[1], NULL, 10) : 64) * (1 << 20) / sizeof(uint64_t);
    uint64_t *words = calloc(n, sizeof *words);
    char line[64];

    if (!words) {
        perror("hog");
        return 1;
    }
    fill(words, n);
    report(words, n);
    while (fgets(line, sizeof line, stdin))
        report(words, n);
    return 0;
}
