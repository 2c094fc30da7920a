#include "common/http.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <setjmp.h>

#include <cmocka.h>

#include "common/loop.h"
#include "http_world.h"

#define PING "GET /ping HTTP/1.1\r\nHost: a\r\n\r\n"

static void pong(struct http_request *request, const void *args, void *userdata)
{
    (void)args, (void)userdata;
    http_reply_text(request, 200, "text/plain", strdup("pong"), 4);
}

static const struct http_route routes[] = {
    { .method = HTTP_GET, .path = "/ping", .access = HTTP_ACCESS_READ, .handle = pong },
};

static const struct http_config config = { .routes = routes, .n_routes = ARRAY_SIZE(routes) };

static int setup(void **state)
{
    *state = http_world_open(&config);
    return 0;
}

static int teardown(void **state)
{
    http_world_close(*state);
    return 0;
}

static void expect_pong(struct http_client *client, int status)
{
    http_client_say(client, PING);
    struct http_answer answer = http_client_answer(client);
    assert_int_equal(answer.status, status);
    http_answer_free(&answer);
    http_client_close(client);
}

/* ---- addresses ---- */

static void test_is_loopback(void **state)
{
    static const char *const yes[] = {
        "127.0.0.1:1", "127.255.255.254:65535", "localhost:0", "[::1]:9696", "[::ffff:127.0.0.1]:1",
    };
    static const char *const no[] = {
        ":9696",
        "0.0.0.0:1",
        "[::]:1",
        "10.0.0.1:1",
        "128.0.0.1:1",
        "126.0.0.1:1",
        "[::2]:1",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:65536",
        "127.1:1",
        "::1:1",
        "[::1]",
        "[::1:1",
        "localhost.evil:1",
        "Localhost:1",
        "[fe80::1]:1",
        "",
        "127.0.0.1:-1",
        "127.0.0.1: 1",
        "127.0.0.1 :1",
        "[127.0.0.1]:1",
        "[]:1",
        "127.0.0.1:99999999999999999999",
        "[::ffff:10.0.0.1]:1",
        "127.0.0.1.127.0.0.1:1",
        "[0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0000:0001]:1",
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(yes); i++)
        if (!http_address_is_loopback(yes[i]))
            fail_msg("%s", yes[i]);
    for (size_t i = 0; i < ARRAY_SIZE(no); i++)
        if (http_address_is_loopback(no[i]))
            fail_msg("%s", no[i]);
}

static void test_bad_addresses(void **state)
{
    static const char *const addresses[] = { "",      "9696",           "example.com:80",
                                             "[::1]", "127.0.0.1:http", "127.0.0.1:70000" };
    struct http_world *world = *state;
    struct error error;

    for (size_t i = 0; i < ARRAY_SIZE(addresses); i++) {
        error = ERROR_INIT;
        assert_int_equal(http_server_listen_tcp(world->server, addresses[i], &error), -EINVAL);
        assert_non_null(strstr(error.msg, "not an address like"));
    }
    error = ERROR_INIT;
    assert_int_equal(http_server_listen_tcp(world->server, "192.0.2.1:0", &error), -EADDRNOTAVAIL);
    assert_non_null(strstr(error.msg, "listen on 192.0.2.1:0: bind: "));
}

static void test_a_port_in_use(void **state)
{
    struct http_world *world = *state;
    struct error error = ERROR_INIT;
    char address[32];

    snprintf(address, sizeof(address), "127.0.0.1:%u", world->port);
    assert_int_equal(http_server_listen_tcp(world->server, address, &error), -EADDRINUSE);
    assert_int_equal(http_server_port(world->server, 1), 0);
    expect_pong(http_world_tcp(world), 401);
}

static void test_every_address(void **state)
{
    struct http_world *world = *state;
    struct error error = ERROR_INIT;

    assert_int_equal(http_server_listen_tcp(world->server, ":0", &error), 0);
    unsigned port = http_server_port(world->server, 1);
    assert_in_range(port, 1, 65535);
    assert_int_not_equal(port, world->port);
    assert_int_equal(http_server_port(world->server, 2), 0);
    expect_pong(http_client_tcp(world->event, port), 401);
    assert_true(world->caller.loopback);
    assert_false(world->caller.local);
}

/* ---- Unix ---- */

/* Binds, as a process does that then dies without cleaning up. */
static void leave_socket(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(address.sun_path, path);
    assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 1), 0);
    close(fd);
}

static int listen_at(struct http_world *world, const char *name, mode_t mode, struct error *error)
{
    char path[256];

    *error = ERROR_INIT;
    snprintf(path, sizeof(path), "%s/%s", world->dir, name);
    return http_server_listen_unix(world->server, path, mode, error);
}

static void path_at(const struct http_world *world, const char *name, char *path, size_t size)
{
    snprintf(path, size, "%s/%s", world->dir, name);
}

static void test_a_stale_socket_is_replaced(void **state)
{
    struct http_world *world = *state;
    struct error error;
    char path[256];

    path_at(world, "stale", path, sizeof(path));
    leave_socket(path);
    assert_int_equal(listen_at(world, "stale", 0600, &error), 0);
    expect_pong(http_client_unix(world->event, path), 200);
    assert_int_equal(world->caller.uid, getuid());
}

static void test_a_live_socket_is_not(void **state)
{
    struct http_world *world = *state;
    struct error error;

    assert_int_equal(listen_at(world, "socket", 0600, &error), -EADDRINUSE);
    assert_non_null(strstr(error.msg, "/socket: bind: "));
    expect_pong(http_world_unix(world), 200);
}

static void test_what_is_no_socket_stays(void **state)
{
    struct http_world *world = *state;
    struct error error;
    struct stat st;
    char path[256];

    path_at(world, "file", path, sizeof(path));
    close(open(path, O_CREAT | O_WRONLY, 0600));
    assert_int_equal(listen_at(world, "file", 0600, &error), -EADDRINUSE);
    assert_int_equal(stat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    unlink(path);

    assert_int_equal(symlink(world->path, path), 0);
    assert_int_equal(listen_at(world, "file", 0600, &error), -EADDRINUSE);
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    unlink(path);
}

static void test_modes(void **state)
{
    static const mode_t modes[] = { 0600, 0660, 0666, 0770 };
    static const mode_t umasks[] = { 0, 022, 077, 0777 };
    struct http_world *world = *state;
    struct error error;
    struct stat st;
    char name[32], path[256];

    for (size_t i = 0; i < ARRAY_SIZE(modes) * ARRAY_SIZE(umasks); i++) {
        mode_t mode = modes[i / ARRAY_SIZE(umasks)];
        mode_t old = umask(umasks[i % ARRAY_SIZE(umasks)]);

        snprintf(name, sizeof(name), "mode%zu", i);
        path_at(world, name, path, sizeof(path));
        assert_int_equal(listen_at(world, name, mode, &error), 0);
        umask(old);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 07777, mode);
    }
}

static void test_bad_paths(void **state)
{
    struct http_world *world = *state;
    struct error error;
    char name[128];

    memset(name, 'x', sizeof(name));
    name[90] = '\0';
    assert_int_equal(listen_at(world, name, 0600, &error), -ENAMETOOLONG);
    assert_int_equal(listen_at(world, "no/such/directory", 0600, &error), -ENOENT);
    assert_int_equal(http_server_listen_unix(world->server, "", 0600, &error), -ENAMETOOLONG);
    expect_pong(http_world_unix(world), 200);
}

static void test_closing_removes_the_socket(void **state)
{
    struct http_world *world = *state;
    struct error error;
    struct stat st;
    char taken[256];

    assert_int_equal(listen_at(world, "taken", 0600, &error), 0);
    path_at(world, "taken", taken, sizeof(taken));
    unlink(taken);
    leave_socket(taken);

    world->server = http_server_close(world->server);
    assert_int_equal(lstat(world->path, &st), -1);
    assert_int_equal(lstat(taken, &st), 0); /* somebody else's by now */
    unlink(taken);
}

/* ---- the server itself ---- */

static enum http_verdict nobody(const struct http_caller *caller, enum http_access access,
                                void *userdata)
{
    (void)caller, (void)access, (void)userdata;
    return HTTP_FORBIDDEN;
}

static void test_config_is_checked(void **state)
{
    static const struct http_route large[] = { { .path = "/", .args_size = HTTP_ARGS_MAX + 1 } };
    static const struct http_route many[] = { { .path = "/", .n_fields = SCHEMA_FIELDS_MAX + 1 } };
    const struct http_config good = { .authorize = nobody,
                                      .connections_max = 1,
                                      .idle_timeout_sec = 1 };
    struct http_config bad[5] = { good, good, good, good, good };
    struct http_server *server = NULL;
    struct error error = ERROR_INIT;
    struct http_world *world = *state;

    bad[0].authorize = NULL;
    bad[1].connections_max = 0;
    bad[2].idle_timeout_sec = 0;
    bad[3].routes = large;
    bad[3].n_routes = 1;
    bad[4].routes = many;
    bad[4].n_routes = 1;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        assert_int_equal(http_server_open(&server, world->event, &bad[i], &error), -EINVAL);
        assert_null(server);
    }
    assert_int_equal(http_server_open(&server, world->event, &good, &error), 0);
    server = http_server_close(server);
    assert_null(server);
    assert_null(http_server_close(NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_is_loopback),
        cmocka_unit_test_setup_teardown(test_bad_addresses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_port_in_use, setup, teardown),
        cmocka_unit_test_setup_teardown(test_every_address, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_stale_socket_is_replaced, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_live_socket_is_not, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_no_socket_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(test_modes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_closing_removes_the_socket, setup, teardown),
        cmocka_unit_test_setup_teardown(test_config_is_checked, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
