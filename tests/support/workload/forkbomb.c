/* forkbomb: processes that fork as fast as they can, most to end at once, so that there is always
 * one that was just born. Only for a group with a pids.max. */
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int main(void)
{
    for (unsigned generation = 0;; generation++) {
        if (fork() == 0 && generation % 4 != 0)
            _exit(0);
        /* The dead are init's, or a subreaper's: without this their entries would fill pids.max. */
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}
