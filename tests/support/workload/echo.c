/* echo ADDRESS [WORK_USEC [CALL_PORT]]: answers what comes over TCP and UDP with itself, after that
 * much work (a sleep, as of a program that waits for its disk). Prints the one port of both. An
 * IPv6 address serves IPv4, too. With CALL_PORT it first calls that port of 127.0.0.1, and reads
 * what is said there. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define FDS_MAX       1024
#define BACKLOG       512
#define PORT_ATTEMPTS 100

union address {
    struct sockaddr any;
    struct sockaddr_in ipv4;
    struct sockaddr_in6 ipv6;
};

static struct pollfd fds[FDS_MAX];
static unsigned n_fds;
static int listener, datagrams;
static useconds_t work_usec;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static socklen_t parse(const char *text, union address *ret)
{
    *ret = (union address){ 0 };
    if (inet_pton(AF_INET, text, &ret->ipv4.sin_addr) == 1) {
        ret->any.sa_family = AF_INET;
        return sizeof ret->ipv4;
    }
    if (inet_pton(AF_INET6, text, &ret->ipv6.sin6_addr) != 1)
        die(text);
    ret->any.sa_family = AF_INET6;
    return sizeof ret->ipv6;
}

static void watch(int fd)
{
    if (n_fds == FDS_MAX)
        die("too many connections");
    fds[n_fds++] = (struct pollfd){ .fd = fd, .events = POLLIN };
}

/* The port that the kernel gives to TCP may be taken for UDP: then both anew. */
static bool open_both(const union address *address, socklen_t size)
{
    union address bound;
    socklen_t len = sizeof bound;

    listener = socket(address->any.sa_family, SOCK_STREAM, 0);
    datagrams = socket(address->any.sa_family, SOCK_DGRAM, 0);
    if (listener < 0 || datagrams < 0 || bind(listener, &address->any, size) < 0 ||
        listen(listener, BACKLOG) < 0 || getsockname(listener, &bound.any, &len) < 0)
        die("listen");
    if (bind(datagrams, &bound.any, size) == 0) {
        printf("%d\n", ntohs(bound.ipv4.sin_port)); /* at the same place in both */
        return true;
    }
    close(listener);
    close(datagrams);
    return false;
}

static void call(const char *port)
{
    struct sockaddr_in address = { .sin_family = AF_INET,
                                   .sin_port = htons((uint16_t)atoi(port)),
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die("call");
    watch(fd);
}

static void work(void)
{
    if (work_usec > 0)
        usleep(work_usec);
}

static void answer_datagram(void)
{
    char text[2048];
    union address from;
    socklen_t len = sizeof from;
    ssize_t n = recvfrom(datagrams, text, sizeof text, 0, &from.any, &len);

    if (n < 0)
        return;
    work();
    sendto(datagrams, text, (size_t)n, 0, &from.any, len);
}

/* False when the connection has ended. */
static bool answer(int fd)
{
    char text[65536];
    ssize_t n = read(fd, text, sizeof text);

    if (n <= 0)
        return false;
    work();
    return write(fd, text, (size_t)n) == n;
}

static void serve(unsigned i)
{
    int fd = fds[i].fd;

    if (fd == listener) {
        watch(accept(listener, NULL, NULL));
    } else if (fd == datagrams) {
        answer_datagram();
    } else if (!answer(fd)) {
        close(fd);
        fds[i] = fds[--n_fds];
    }
}

int main(int argc, char **argv)
{
    union address address;
    socklen_t size = parse(argc > 1 ? argv[1] : "127.0.0.1", &address);
    int attempts = 0;

    signal(SIGPIPE, SIG_IGN);
    work_usec = argc > 2 ? (useconds_t)atoi(argv[2]) : 0;
    if (argc > 3)
        call(argv[3]);
    while (!open_both(&address, size))
        if (++attempts == PORT_ATTEMPTS)
            die("no port is free for both");
    fflush(stdout);
    watch(listener);
    watch(datagrams);
    for (;;) {
        if (poll(fds, n_fds, -1) < 0 && errno != EINTR)
            die("poll");
        for (unsigned i = n_fds; i-- > 0;)
            if (fds[i].revents)
                serve(i);
    }
}
