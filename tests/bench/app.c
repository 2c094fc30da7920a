/* app: a process that says when it runs. For every byte on its stdin it prints the time: written
 * while the app is frozen, that is the moment at which it ran again. */
#include "tool.h"

int main(void)
{
    char byte;

    while (read(STDIN_FILENO, &byte, 1) == 1)
        answer(now_nsec(), 0, 0, 0);
    return 0;
}
