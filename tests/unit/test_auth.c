#include "agent/auth.h"

#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/log.h"
#include "node.h"

#define TOKEN   "0123456789abcdef"
#define ANOTHER "fedcba9876543210"
#define NOBODY  65534

/* ---- the bench: a directory with a token file ---- */

static char dir[64];
static char path[96];
static struct auth *auth;

static int setup(void **state)
{
    (void)state;
    alarm(60);
    log_open("test", LOG_EMERG, LOG_FORMAT_TEXT);
    strcpy(dir, "/tmp/torpor-auth-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/tokens", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    auth = auth_close(auth);
    alarm(0);
    return system(keep("rm -r %s", dir));
}

static void put_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static int open_auth(const char *tokens)
{
    struct error error = ERROR_INIT;

    auth = auth_close(auth);
    put_file(path, tokens);
    int r = auth_open(&auth, path, false, &error);
    if (r < 0) {
        assert_non_null(strstr(error.msg, path));
        assert_null(strstr(error.msg, "abc")); /* never the token itself */
    }
    return r;
}

static enum http_verdict with_token(const char *token)
{
    struct http_caller caller = { .fd = -1, .token = token };

    return auth_check(auth, &caller, HTTP_ACCESS_WRITE);
}

/* ---- the file ---- */

static void test_tokens_are_lines(void **state)
{
    (void)state;
    assert_int_equal(open_auth("# of the backend\n\n" TOKEN "\r\n\t\n" ANOTHER " the other one\n"),
                     0);
    assert_int_equal(with_token(TOKEN), HTTP_ALLOW);
    assert_int_equal(with_token(ANOTHER), HTTP_ALLOW);
    assert_int_equal(with_token("# of the backend"), HTTP_UNAUTHORIZED);
    assert_int_equal(open_auth(TOKEN), 0); /* without an end */
    assert_int_equal(with_token(TOKEN), HTTP_ALLOW);
    assert_null(auth_close(NULL));
}

static void test_a_token_is_known_whole(void **state)
{
    static const char *const wrong[] = {
        "",        "0",        "0123456789abcde",  TOKEN "0",          TOKEN TOKEN,
        TOKEN " ", " " TOKEN,  "0123456789ABCDEF", "0123456789abcdeg", ANOTHER,
        "\n",      TOKEN "\n",
    };

    (void)state;
    assert_int_equal(open_auth(TOKEN "\n"), 0);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(with_token(wrong[i]), HTTP_UNAUTHORIZED);
    assert_int_equal(with_token(NULL), HTTP_UNAUTHORIZED);
}

static void test_files_that_will_not_do(void **state)
{
    char *large = malloc(70u << 10);

    (void)state;
    assert_int_equal(open_auth(""), -EINVAL);
    assert_int_equal(open_auth("# nothing\n\n"), -EINVAL);
    assert_int_equal(open_auth("0123456789abcde\n"), -EINVAL); /* one too short */
    assert_int_equal(open_auth(TOKEN "\nshort\n"), -EINVAL);
    memset(large, 'a', 70u << 10);
    large[AUTH_TOKEN_SIZE] = '\0';
    assert_int_equal(open_auth(large), -EINVAL);
    large[AUTH_TOKEN_SIZE - 1] = '\0';
    assert_int_equal(open_auth(large), 0);
    assert_int_equal(with_token(large), HTTP_ALLOW);
    for (size_t i = 0; i < 70u << 10; i += 32)
        memcpy(large + i, TOKEN "               \n", 32);
    large[(70u << 10) - 1] = '\0';
    assert_int_equal(open_auth(large), -EINVAL); /* the file is too large */
    free(large);
}

static void test_so_many_tokens(void **state)
{
    char text[(AUTH_TOKENS_MAX + 1) * 32] = "";

    (void)state;
    for (unsigned i = 0; i < AUTH_TOKENS_MAX; i++)
        sprintf(text + strlen(text), "token-number-%05u\n", i);
    assert_int_equal(open_auth(text), 0);
    assert_int_equal(with_token("token-number-00015"), HTTP_ALLOW);
    strcat(text, "token-number-99999\n");
    assert_int_equal(open_auth(text), -E2BIG);
}

static void test_what_is_no_file(void **state)
{
    (void)state;
    assert_int_equal(auth_open(&auth, path, false, NULL), -ENOENT);
    assert_int_equal(auth_open(&auth, dir, false, NULL), -EINVAL);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(auth_open(&auth, path, false, NULL), -EINVAL); /* and waits for no writer */
    assert_null(auth);
}

static void test_a_file_that_changes_is_read_anew(void **state)
{
    (void)state;
    assert_int_equal(open_auth(TOKEN "\n"), 0);
    put_file(path, ANOTHER "\n");
    assert_int_equal(with_token(TOKEN), HTTP_UNAUTHORIZED);
    assert_int_equal(with_token(ANOTHER), HTTP_ALLOW);
}

/* As the kubelet exchanges a secret. */
static void test_a_file_behind_a_link_is_read_anew(void **state)
{
    const char *first = keep("%s/1", dir), *second = keep("%s/2", dir), *new = keep("%s/new", dir);

    (void)state;
    put_file(first, TOKEN "\n");
    put_file(second, ANOTHER "\n");
    assert_int_equal(symlink(first, path), 0);
    assert_int_equal(auth_open(&auth, path, false, NULL), 0);
    assert_int_equal(with_token(TOKEN), HTTP_ALLOW);
    assert_int_equal(symlink(second, new), 0);
    assert_int_equal(rename(new, path), 0);
    assert_int_equal(with_token(TOKEN), HTTP_UNAUTHORIZED);
    assert_int_equal(with_token(ANOTHER), HTTP_ALLOW);
}

static void test_a_file_that_goes_or_is_spoilt_lets_nobody_in(void **state)
{
    (void)state;
    assert_int_equal(open_auth(TOKEN "\n"), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(with_token(TOKEN), HTTP_UNAUTHORIZED);
    put_file(path, "spoilt\n");
    assert_int_equal(with_token(TOKEN), HTTP_UNAUTHORIZED);
    assert_int_equal(with_token("spoilt"), HTTP_UNAUTHORIZED);
    put_file(path, TOKEN "\n");
    assert_int_equal(with_token(TOKEN), HTTP_ALLOW);
}

/* ---- who calls how ---- */

static enum http_verdict check(const struct http_caller *caller, enum http_access access)
{
    return auth_check(auth, caller, access);
}

static void test_on_the_unix_socket_the_kernels_word_counts(void **state)
{
    struct http_caller root = { .local = true, .uid = 0, .fd = -1 };
    struct http_caller other = { .local = true, .uid = NOBODY, .fd = -1, .token = TOKEN };

    (void)state;
    assert_int_equal(open_auth(TOKEN "\n"), 0);
    assert_int_equal(check(&root, HTTP_ACCESS_WRITE), HTTP_ALLOW);
    assert_int_equal(check(&other, HTTP_ACCESS_READ), HTTP_FORBIDDEN);
    assert_int_equal(check(&other, HTTP_ACCESS_WRITE), HTTP_FORBIDDEN);
}

static void test_over_tcp_nobody_is_anonymous(void **state)
{
    struct http_caller far = { .fd = -1 }, near = { .fd = -1, .loopback = true };

    (void)state;
    assert_int_equal(open_auth(TOKEN "\n"), 0);
    assert_int_equal(check(&far, HTTP_ACCESS_READ), HTTP_UNAUTHORIZED);
    assert_int_equal(check(&near, HTTP_ACCESS_READ), HTTP_UNAUTHORIZED);
    auth = auth_close(auth);
    assert_int_equal(auth_open(&auth, NULL, false, NULL), 0); /* no file: no token is right */
    assert_int_equal(with_token(""), HTTP_UNAUTHORIZED);
    assert_int_equal(check(&near, HTTP_ACCESS_WRITE), HTTP_UNAUTHORIZED);
    auth = auth_close(auth);
    assert_int_equal(auth_open(&auth, NULL, true, NULL), 0);
    assert_int_equal(check(&far, HTTP_ACCESS_READ), HTTP_UNAUTHORIZED);
    near.token = TOKEN; /* who says who he is must be right */
    assert_int_equal(check(&near, HTTP_ACCESS_READ), HTTP_UNAUTHORIZED);
}

/* ---- loopback: a client of another user, on a real connection ---- */

enum client_does { CLIENT_HOLDS, CLIENT_CLOSES };

/* In the child: connects as `uid`, then holds the connection, or closes it. */
static void be_client(int family, unsigned port, uid_t uid, enum client_does does, int ready)
{
    struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)port) };
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6,
                                .sin6_port = htons((uint16_t)port),
                                .sin6_addr = IN6ADDR_LOOPBACK_INIT };

    in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (setresuid(uid, uid, uid) < 0)
        _exit(1);
    int fd = socket(family, SOCK_STREAM, 0);
    int r = family == AF_INET ? connect(fd, (struct sockaddr *)&in, sizeof in)
                              : connect(fd, (struct sockaddr *)&in6, sizeof in6);
    if (r < 0 || send(fd, "POST", 4, 0) != 4)
        _exit(1);
    if (does == CLIENT_CLOSES)
        close(fd);
    if (write(ready, "x", 1) != 1)
        _exit(1);
    for (;;)
        pause();
}

static int listen_on(int family, unsigned *ret_port)
{
    struct sockaddr_in6 address = { .sin6_family = (sa_family_t)family };
    socklen_t len = sizeof address;
    int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address,
                          family == AF_INET ? sizeof(struct sockaddr_in) : sizeof address),
                     0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &len), 0);
    *ret_port = ntohs(address.sin6_port); /* at the same place in both */
    return fd;
}

static enum http_verdict ask_as(int listening, int client_family, unsigned port, uid_t uid,
                                enum client_does does, enum http_access access)
{
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0)
        be_client(client_family, port, uid, does, ready[1]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    int fd = accept(listening, NULL, NULL);
    assert_true(fd >= 0);
    struct http_caller caller = { .loopback = true, .fd = fd };
    enum http_verdict verdict = auth_check(auth, &caller, access);
    close(fd);
    process_end(pid);
    return verdict;
}

static void ask_each(int server_family, int client_family)
{
    unsigned port;
    int fd = listen_on(server_family, &port);
    static const struct {
        uid_t uid;
        enum client_does does;
        enum http_access access;
        enum http_verdict verdict;
    } cases[] = {
        { 0, CLIENT_HOLDS, HTTP_ACCESS_WRITE, HTTP_ALLOW },
        { NOBODY, CLIENT_HOLDS, HTTP_ACCESS_WRITE, HTTP_FORBIDDEN },
        { NOBODY, CLIENT_HOLDS, HTTP_ACCESS_READ, HTTP_ALLOW },
        /* A socket without a process belongs to nobody, though the kernel says 0. */
        { NOBODY, CLIENT_CLOSES, HTTP_ACCESS_WRITE, HTTP_FORBIDDEN },
        { 0, CLIENT_CLOSES, HTTP_ACCESS_WRITE, HTTP_FORBIDDEN },
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(
            ask_as(fd, client_family, port, cases[i].uid, cases[i].does, cases[i].access),
            cases[i].verdict);
    close(fd);
}

static void test_on_loopback_the_process_at_the_other_end_counts(void **state)
{
    (void)state;
    assert_int_equal(auth_open(&auth, NULL, true, NULL), 0);
    ask_each(AF_INET, AF_INET);
}

static void test_the_same_for_ipv6_and_for_ipv4_within(void **state)
{
    (void)state;
    if (access("/proc/net/if_inet6", F_OK) < 0)
        skip();
    assert_int_equal(auth_open(&auth, NULL, true, NULL), 0);
    ask_each(AF_INET6, AF_INET6);
    ask_each(AF_INET6, AF_INET);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_tokens_are_lines),
        TEST(test_a_token_is_known_whole),
        TEST(test_files_that_will_not_do),
        TEST(test_so_many_tokens),
        TEST(test_what_is_no_file),
        TEST(test_a_file_that_changes_is_read_anew),
        TEST(test_a_file_behind_a_link_is_read_anew),
        TEST(test_a_file_that_goes_or_is_spoilt_lets_nobody_in),
        TEST(test_on_the_unix_socket_the_kernels_word_counts),
        TEST(test_over_tcp_nobody_is_anonymous),
        TEST(test_on_loopback_the_process_at_the_other_end_counts),
        TEST(test_the_same_for_ipv6_and_for_ipv4_within),
    };

    return cmocka_run_group_tests_name("auth", tests, NULL, NULL);
}
