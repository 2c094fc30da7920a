/* client SOCKET: the least that speaks HTTP, over a Unix socket and a connection that is kept, so
 * that what is measured is the agent. Commands on stdin: METHOD PATH [BODY]. */
#include <sys/socket.h>
#include <sys/un.h>

#include "tool.h"

#define CHUNKED_END "\r\n0\r\n\r\n"

static struct {
    char *data;
    size_t len, size;
} response;

static int connect_to(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) < 0)
        die(path);
    return fd;
}

/* An idle connection is closed by the agent after a while. */
static int is_closed(int fd)
{
    char byte;

    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static void receive_more(int fd)
{
    if (response.size - response.len < 65536) {
        response.size = response.size * 2 + 131072;
        response.data = realloc(response.data, response.size);
        if (!response.data)
            die("no memory");
    }
    ssize_t n = read(fd, response.data + response.len, response.size - response.len - 1);
    if (n <= 0)
        die("the agent ended the connection");
    response.len += (size_t)n;
    response.data[response.len] = '\0';
}

static int is_complete(void)
{
    const char *body = response.len ? strstr(response.data, "\r\n\r\n") : NULL;
    const char *length = response.len ? strcasestr(response.data, "\ncontent-length:") : NULL;
    size_t tail = strlen(CHUNKED_END);

    if (!body)
        return 0;
    body += strlen("\r\n\r\n");
    if (length && length < body)
        return response.len - (size_t)(body - response.data) >=
               strtoull(strchr(length, ':') + 1, NULL, 10);
    return strcmp(response.data + response.len - tail, CHUNKED_END) == 0;
}

static size_t format(char *text, size_t size, char *line)
{
    char *method = strtok(line, " "), *path = strtok(NULL, " "), *rest = strtok(NULL, "");
    const char *body = rest ? rest : "";

    if (!method || !path) {
        errno = EINVAL;
        die("METHOD PATH [BODY]");
    }
    return (size_t)snprintf(text, size,
                            "%s %s HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
                            "Content-Length: %zu\r\n\r\n%s",
                            method, path, strlen(body), body);
}

static void ask(int fd, char *line)
{
    char text[LINE_SIZE * 2];
    size_t len = format(text, sizeof text, line);

    response.len = 0;
    uint64_t start = now_nsec();
    if (write(fd, text, len) != (ssize_t)len)
        die("send");
    do
        receive_more(fd);
    while (!is_complete());
    answer(start, now_nsec(), (unsigned)atoi(response.data + strlen("HTTP/1.1 ")), response.len);
}

int main(int argc, char **argv)
{
    char line[LINE_SIZE];

    if (argc != 2)
        die("client SOCKET");
    int fd = connect_to(argv[1]);
    while (next_command(line)) {
        if (is_closed(fd)) {
            close(fd);
            fd = connect_to(argv[1]);
        }
        ask(fd, line);
    }
    return 0;
}
