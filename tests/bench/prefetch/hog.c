/* hog MB WORKING_MB: holds that much memory that does not compress, of which a fixed part, spread
 * at random, is the working set. A line on stdin is a request; the answer is a line with a
 * checksum.
 *
 *   first   reads the working set, in random order
 *   all     reads everything, in random order */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PAGE 4096

static uint64_t state = 88172645463325252u;

/* xorshift64 */
static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static size_t *shuffle(size_t n)
{
    size_t *order = calloc(n, sizeof *order);

    if (!order)
        exit(EXIT_FAILURE);
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n - 1; i > 0; i--) {
        size_t other = next() % (i + 1), saved = order[i];
        order[i] = order[other];
        order[other] = saved;
    }
    return order;
}

static char *fill(size_t n_pages)
{
    char *memory = aligned_alloc(PAGE, n_pages * PAGE);
    uint64_t *words = (uint64_t *)memory;

    if (!memory)
        exit(EXIT_FAILURE);
    for (size_t i = 0; i < n_pages * PAGE / sizeof *words; i++)
        words[i] = next();
    return memory;
}

int main(int argc, char **argv)
{
    size_t n = (argc > 1 ? strtoul(argv[1], NULL, 10) : 128) * (1 << 20) / PAGE;
    size_t working = (argc > 2 ? strtoul(argv[2], NULL, 10) : 32) * (1 << 20) / PAGE;
    size_t *order = shuffle(n);
    char *memory = fill(n), line[16];

    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        size_t last = strcmp(line, "first\n") == 0 ? working : n;
        uint64_t sum = 0;
        for (size_t i = 0; i < last; i++)
            sum = sum * 31 + *(uint64_t *)(memory + order[i] * PAGE);
        printf("%016" PRIx64 "\n", sum);
        fflush(stdout);
    }
    return 0;
}
