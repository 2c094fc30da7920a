#include "agent/auth.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>

#include "agent/sockdiag.h"
#include "common/log.h"

#define TOKEN_FILE_MAX (64u << 10)

/* Two writes within a tick of the kernel's clock leave the same time of modification. */
#define SETTLE_SEC 1

struct auth {
    bool anonymous_loopback;
    char *token_file;
    struct stat seen; /* the file, when it was read */
    bool settled;     /* it was old enough then that a later write has another time */
    bool complained;  /* the log has heard of what is wrong with it */
    char *tokens[AUTH_TOKENS_MAX];
    unsigned n_tokens;
};

/* ---- tokens ---- */

static void forget_tokens(struct auth *auth)
{
    for (unsigned i = 0; i < auth->n_tokens; i++) {
        explicit_bzero(auth->tokens[i], strlen(auth->tokens[i]));
        free(auth->tokens[i]);
    }
    auth->n_tokens = 0;
}

static int add_token(struct auth *auth, const char *line, struct error *error)
{
    size_t len = strcspn(line, " \t\r");

    if (len == 0 || *line == '#')
        return 0;
    if (len < AUTH_TOKEN_MIN || len >= AUTH_TOKEN_SIZE)
        return error_set(error, EINVAL, "token file %s: a token has %d to %d characters",
                         auth->token_file, AUTH_TOKEN_MIN, AUTH_TOKEN_SIZE - 1);
    if (auth->n_tokens == AUTH_TOKENS_MAX)
        return error_set(error, E2BIG, "token file %s: more than %d tokens", auth->token_file,
                         AUTH_TOKENS_MAX);
    auth->tokens[auth->n_tokens] = strndup(line, len);
    if (!auth->tokens[auth->n_tokens])
        return error_set(error, ENOMEM, "token file %s", auth->token_file);
    auth->n_tokens++;
    return 0;
}

static int parse_tokens(struct auth *auth, char *text, struct error *error)
{
    char *rest = NULL;

    forget_tokens(auth);
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        int r = add_token(auth, line, error);
        if (r < 0)
            return r;
    }
    if (auth->n_tokens == 0)
        return error_set(error, EINVAL, "token file %s holds no token", auth->token_file);
    return 0;
}

static int read_tokens(struct auth *auth, struct error *error)
{
    /* O_NONBLOCK: a FIFO would wait for its writer. */
    cleanup(close_p) int fd = open(auth->token_file, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    cleanup(free_p) char *text = NULL;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return error_set(error, errno, "open the token file %s", auth->token_file);
    if (!S_ISREG(st.st_mode) || st.st_size > TOKEN_FILE_MAX)
        return error_set(error, EINVAL, "token file %s is no small regular file", auth->token_file);
    text = calloc(1, (size_t)st.st_size + 1);
    if (!text || read(fd, text, (size_t)st.st_size) < 0)
        return error_set(error, text ? errno : ENOMEM, "read the token file %s", auth->token_file);
    auth->seen = st;
    auth->settled = time(NULL) - st.st_mtim.tv_sec > SETTLE_SEC;
    int r = parse_tokens(auth, text, error);
    explicit_bzero(text, (size_t)st.st_size);
    return r;
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_mtim.tv_sec == b->st_mtim.tv_sec && a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* Secrets of Kubernetes are exchanged under a symbolic link: what is behind the path counts. A new
 * file that will not do leaves nobody with a token, which is the safe side. */
static void refresh_tokens(struct auth *auth)
{
    struct error error = ERROR_INIT;
    struct stat st;

    if (auth->settled && stat(auth->token_file, &st) == 0 && is_same(&st, &auth->seen))
        return;
    if (read_tokens(auth, &error) == 0) {
        auth->complained = false;
        return;
    }
    forget_tokens(auth);
    if (!auth->complained) /* once, and not for everybody who tries a token */
        log_error("%s; no token is accepted", error.msg);
    auth->complained = true;
}

/* In a time that depends on the lengths only. */
static bool equal(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    volatile unsigned char difference = n != m;

    for (size_t i = 0; i < n; i++)
        difference |= (unsigned char)(a[i] ^ b[m ? i % m : 0]);
    return difference == 0;
}

static bool knows_token(struct auth *auth, const char *token)
{
    bool found = false;

    if (!auth->token_file)
        return false;
    refresh_tokens(auth);
    for (unsigned i = 0; i < auth->n_tokens; i++)
        found |= equal(token, auth->tokens[i]);
    return found;
}

/* ---- the process at the other end of a loopback connection ---- */

static void set_endpoint(const struct sockaddr_storage *address, uint32_t *to, __be16 *port)
{
    if (address->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)address;
        memcpy(to, &in->sin_addr, sizeof in->sin_addr);
        *port = in->sin_port;
    } else {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)address;
        memcpy(to, &in6->sin6_addr, sizeof in6->sin6_addr);
        *port = in6->sin6_port;
    }
}

/* The one socket whose source is our peer. A socket that its process has closed belongs to nobody:
 * the kernel then says uid 0 and inode 0 (sock_i_uid, inet_twsk_diag_fill), and uid 0 would be
 * root. It fills in the uid first. */
static bool ask_kernel(const struct sockaddr_storage *peer, const struct sockaddr_storage *self,
                       uid_t *ret)
{
    struct inet_diag_req_v2 request = { .sdiag_family = (uint8_t)peer->ss_family,
                                        .sdiag_protocol = IPPROTO_TCP,
                                        .idiag_states = -1U,
                                        .id.idiag_cookie = { INET_DIAG_NOCOOKIE,
                                                             INET_DIAG_NOCOOKIE } };
    struct inet_diag_msg about;
    cleanup(close_p) int netlink = -1;

    set_endpoint(peer, request.id.idiag_src, &request.id.idiag_sport);
    set_endpoint(self, request.id.idiag_dst, &request.id.idiag_dport);
    if (sockdiag_open(&netlink, NULL) < 0 || sockdiag_get(netlink, &request, &about) < 0 ||
        about.idiag_inode == 0)
        return false;
    *ret = about.idiag_uid;
    return true;
}

static bool peer_uid(int fd, uid_t *ret)
{
    struct sockaddr_storage peer = { 0 }, self = { 0 };
    socklen_t peer_len = sizeof peer, self_len = sizeof self;

    return getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 &&
           getsockname(fd, (struct sockaddr *)&self, &self_len) == 0 &&
           ask_kernel(&peer, &self, ret);
}

/* ---- the verdict ---- */

static bool is_trusted(uid_t uid)
{
    return uid == 0 || uid == geteuid();
}

static enum http_verdict check_loopback(const struct http_caller *caller, enum http_access access)
{
    uid_t uid = (uid_t)-1;

    if (access != HTTP_ACCESS_WRITE)
        return HTTP_ALLOW;
    return peer_uid(caller->fd, &uid) && is_trusted(uid) ? HTTP_ALLOW : HTTP_FORBIDDEN;
}

enum http_verdict auth_check(struct auth *auth, const struct http_caller *caller,
                             enum http_access access)
{
    if (caller->local)
        return is_trusted(caller->uid) ? HTTP_ALLOW : HTTP_FORBIDDEN;
    if (caller->token)
        return knows_token(auth, caller->token) ? HTTP_ALLOW : HTTP_UNAUTHORIZED;
    if (caller->loopback && auth->anonymous_loopback)
        return check_loopback(caller, access);
    return HTTP_UNAUTHORIZED;
}

/* ---- the object ---- */

int auth_open(struct auth **ret, const char *token_file, bool anonymous_loopback,
              struct error *error)
{
    struct auth *auth = calloc(1, sizeof *auth);
    int r = 0;

    if (!auth)
        return error_set(error, ENOMEM, "open the token file");
    auth->anonymous_loopback = anonymous_loopback;
    if (token_file) {
        auth->token_file = strdup(token_file);
        r = auth->token_file ? read_tokens(auth, error) : error_set(error, ENOMEM, "token file");
    }
    if (r < 0) {
        auth_close(auth);
        return r;
    }
    *ret = auth;
    return 0;
}

struct auth *auth_close(struct auth *auth)
{
    if (auth) {
        forget_tokens(auth);
        free(auth->token_file);
    }
    free(auth);
    return NULL;
}
