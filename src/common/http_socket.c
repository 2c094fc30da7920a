#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "http_internal.h"

union address {
    struct sockaddr any;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
    struct sockaddr_un un;
};

/* ---- addresses ---- */

bool http_socket_is_loopback(const struct sockaddr *address)
{
    const struct in6_addr *in6 = &((const struct sockaddr_in6 *)address)->sin6_addr;
    in_addr_t in = ((const struct sockaddr_in *)address)->sin_addr.s_addr;

    if (address->sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(in6))
        return IN6_IS_ADDR_LOOPBACK(in6);
    if (address->sa_family == AF_INET6)
        in = in6->s6_addr32[3];
    else if (address->sa_family != AF_INET)
        return false;
    return ntohl(in) >> 24 == IN_LOOPBACKNET;
}

static bool parse_port(const char *text, in_port_t *ret)
{
    unsigned port = 0;

    if (!*text)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        port = port * 10 + (unsigned)(*text - '0');
        if (port > UINT16_MAX)
            return false;
    }
    *ret = htons((uint16_t)port);
    return true;
}

static bool parse_ipv6(const char *host, size_t len, in_port_t port, union address *ret)
{
    char text[INET6_ADDRSTRLEN];

    if (len < 2 || host[len - 1] != ']' || len - 2 >= sizeof(text))
        return false;
    memcpy(text, host + 1, len - 2);
    text[len - 2] = '\0';
    ret->in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port };
    return inet_pton(AF_INET6, text, &ret->in6.sin6_addr) == 1;
}

static bool parse_ipv4(const char *host, size_t len, in_port_t port, union address *ret)
{
    char text[INET_ADDRSTRLEN];

    if (len >= sizeof(text))
        return false;
    memcpy(text, host, len);
    text[len] = '\0';
    ret->in = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = port };
    if (!strcmp(text, "localhost"))
        ret->in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    else if (inet_pton(AF_INET, text, &ret->in.sin_addr) != 1)
        return false;
    return true;
}

/* Literals only: a name would be asked of somebody who may be waiting for us. */
static bool parse_address(const char *text, union address *ret)
{
    const char *colon = strrchr(text, ':');
    in_port_t port;

    if (!colon || !parse_port(colon + 1, &port))
        return false;

    size_t len = (size_t)(colon - text);
    if (len == 0)
        ret->in6 = (struct sockaddr_in6){ .sin6_family = AF_INET6, .sin6_port = port };
    if (len == 0)
        return true;
    return text[0] == '[' ? parse_ipv6(text, len, port, ret) : parse_ipv4(text, len, port, ret);
}

bool http_address_is_loopback(const char *address)
{
    union address parsed;

    return parse_address(address, &parsed) && http_socket_is_loopback(&parsed.any);
}

/* ---- TCP ---- */

static int bind_tcp(const union address *address)
{
    socklen_t len = address->any.sa_family == AF_INET6 ? sizeof(address->in6) : sizeof(address->in);
    cleanup(close_p) int fd =
        socket(address->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){ 1 }, sizeof(int)) < 0)
        return -errno;
    if (address->any.sa_family == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &(int){ 0 }, sizeof(int)) < 0)
        return -errno;
    if (bind(fd, &address->any, len) < 0 || listen(fd, SOMAXCONN) < 0)
        return -errno;
    return TAKE_FD(fd);
}

static bool without_ipv6(int r)
{
    return r == -EAFNOSUPPORT || r == -EADDRNOTAVAIL;
}

static int port_of(int fd, unsigned *ret)
{
    union address address = { 0 };
    socklen_t len = sizeof(address);

    if (getsockname(fd, &address.any, &len) < 0)
        return -errno;
    *ret = ntohs(address.any.sa_family == AF_INET6 ? address.in6.sin6_port : address.in.sin_port);
    return 0;
}

int http_socket_tcp(const char *text, unsigned *ret_port, struct error *error)
{
    union address address;

    if (!parse_address(text, &address))
        return error_set(error, EINVAL, "not an address like 127.0.0.1:9696, [::1]:9696 or :9696");

    int r = bind_tcp(&address);
    if (without_ipv6(r) && text[0] == ':') {
        address.in =
            (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = address.in6.sin6_port };
        r = bind_tcp(&address);
    }
    if (r < 0)
        return error_set(error, -r, "bind");

    cleanup(close_p) int fd = r;
    r = port_of(fd, ret_port);
    if (r < 0)
        return error_set(error, -r, "ask for the port");
    return TAKE_FD(fd);
}

/* ---- Unix ---- */

static int unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd < 0 ? -errno : fd;
}

/* Is there a socket file of a process that is no more? A regular file refuses connections just the
 * same, and is not ours to remove. */
static bool is_stale(const union address *address)
{
    struct stat st;
    cleanup(close_p) int fd = unix_socket();

    return fd >= 0 && lstat(address->un.sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
           connect(fd, &address->any, sizeof(address->un)) < 0 && errno == ECONNREFUSED;
}

static int bind_unix(int fd, const union address *address, struct error *error)
{
    const char *path = address->un.sun_path;

    if (bind(fd, &address->any, sizeof(address->un)) == 0)
        return 0;
    if (errno != EADDRINUSE || !is_stale(address))
        return error_set(error, errno, "bind");
    if (unlink(path) < 0 && errno != ENOENT)
        return error_set(error, errno, "remove the socket of a process that is gone");
    if (bind(fd, &address->any, sizeof(address->un)) < 0)
        return error_set(error, errno, "bind");
    return 0;
}

int http_socket_unix(const char *path, mode_t mode, struct error *error)
{
    union address address = { .un = { .sun_family = AF_UNIX } };
    size_t len = strlen(path);

    if (len == 0 || len >= sizeof(address.un.sun_path))
        return error_set(error, ENAMETOOLONG, "socket path of %zu bytes", len);
    memcpy(address.un.sun_path, path, len + 1);

    cleanup(close_p) int fd = unix_socket();
    if (fd < 0)
        return error_set(error, -fd, "open");

    /* The mode of the unbound socket limits that of the file from its first instant; chmod gives
     * back what the umask took. */
    if (fchmod(fd, mode) < 0)
        return error_set(error, errno, "set the mode");
    int r = bind_unix(fd, &address, error);
    if (r < 0)
        return r;
    if (chmod(path, mode) < 0 || listen(fd, SOMAXCONN) < 0) {
        r = error_set(error, errno, "listen");
        unlink(path);
        return r;
    }
    return TAKE_FD(fd);
}
