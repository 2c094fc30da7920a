/* silentfs DIRECTORY: mounts a FUSE file system there that never answers. Whoever opens a file in
 * it waits in the kernel and cannot be frozen, as on a dead network file system. Ends with its
 * stdin, and they get an error then. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char options[128], byte;
    int fd = open("/dev/fuse", O_RDWR);

    if (argc != 2 || fd < 0) {
        perror("silentfs: /dev/fuse");
        return 1;
    }
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
    if (mount("silentfs", argv[1], "fuse", 0, options) < 0) {
        perror("silentfs: mount");
        return 1;
    }
    puts("ready");
    fflush(stdout);
    while (read(STDIN_FILENO, &byte, 1) > 0)
        ;
    return umount2(argv[1], MNT_DETACH) < 0;
}
