#include "http_world.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/loop.h"

static void must(int r, const struct error *error)
{
    if (r >= 0)
        return;
    fprintf(stderr, "http_world: %s\n", error->msg);
    abort();
}

static enum http_verdict authorize(const struct http_caller *caller, enum http_access access,
                                   void *userdata)
{
    struct http_world *world = userdata;
    const char *token = caller->token ? caller->token : "";

    world->caller = *caller;
    snprintf(world->token, sizeof(world->token), "%s", token);
    world->caller.token = caller->token ? world->token : NULL;
    if (caller->local || !strcmp(token, "secret"))
        return HTTP_ALLOW;
    if (!strcmp(token, "reader"))
        return access == HTTP_ACCESS_READ ? HTTP_ALLOW : HTTP_FORBIDDEN;
    return HTTP_UNAUTHORIZED;
}

static void on_answered(const char *path, unsigned status, uint64_t usec, void *userdata)
{
    struct http_world *world = userdata;

    world->answered++;
    world->answered_path = path;
    world->answered_status = status;
    world->answered_usec = usec;
}

static struct http_config complete(const struct http_config *config, struct http_world *world)
{
    struct http_config all = *config;

    all.userdata = world;
    all.authorize = authorize;
    all.on_answered = on_answered;
    all.body_max = all.body_max ? all.body_max : 4096;
    all.connections_max = all.connections_max ? all.connections_max : 64;
    all.idle_timeout_sec = all.idle_timeout_sec ? all.idle_timeout_sec : 30;
    all.streams_max = all.streams_max ? all.streams_max : 4;
    return all;
}

struct http_world *http_world_open(const struct http_config *config)
{
    struct http_world *world = calloc(1, sizeof(*world));
    struct error error = ERROR_INIT;

    must(world ? 0 : -1, &error);
    strcpy(world->dir, "/tmp/torpor-http-XXXXXX");
    must(mkdtemp(world->dir) ? 0 : -1, &error);
    snprintf(world->path, sizeof(world->path), "%s/socket", world->dir);

    struct http_config all = complete(config, world);
    must(loop_open(&world->event, &error), &error);
    must(http_server_open(&world->server, world->event, &all, &error), &error);
    must(http_server_listen_tcp(world->server, "127.0.0.1:0", &error), &error);
    must(http_server_listen_unix(world->server, world->path, 0600, &error), &error);
    world->port = http_server_port(world->server, 0);
    return world;
}

struct http_world *http_world_close(struct http_world *world)
{
    http_server_close(world->server);
    loop_close(world->event);
    rmdir(world->dir);
    free(world);
    return NULL;
}

struct http_client *http_world_tcp(struct http_world *world)
{
    return http_client_tcp(world->event, world->port);
}

struct http_client *http_world_unix(struct http_world *world)
{
    return http_client_unix(world->event, world->path);
}

struct http_answer http_world_ask(struct http_world *world, const char *text)
{
    struct http_client *client = http_world_tcp(world);

    http_client_say(client, text);
    struct http_answer answer = http_client_answer(client);
    http_client_close(client);
    return answer;
}
