/* visitor PORT: for each number on stdin so many requests over one new connection to hello; tells
 * when it began to connect and when the last answer was there. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "tool.h"

#define DEADLINE_SEC 30

static int connect_to(int port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)port),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval deadline = { .tv_sec = DEADLINE_SEC };

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &deadline, sizeof deadline);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("connect");
    return fd;
}

static size_t ask(int fd)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: hello\r\n\r\n";
    char response[LINE_SIZE];
    ssize_t n = write(fd, request, sizeof request - 1);

    if (n > 0)
        n = read(fd, response, sizeof response);
    if (n <= 0 || response[n - 1] != '\n') /* small enough to come in one piece */
        die("ask");
    return (size_t)n;
}

int main(int argc, char **argv)
{
    char line[LINE_SIZE];

    while (argc == 2 && next_command(line)) {
        size_t bytes = 0;
        uint64_t start = now_nsec();
        int fd = connect_to(atoi(argv[1]));
        for (long left = atol(line); left > 0; left--)
            bytes += ask(fd);
        answer(start, now_nsec(), 200, bytes);
        close(fd);
    }
    return 0;
}
