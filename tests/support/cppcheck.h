/* What cppcheck must know of macros whose headers it does not read. */
#define HASH_ITER(hh, head, el, tmp)   for (;;)
#define TAILQ_FOREACH(var, head, link) for (;;)
