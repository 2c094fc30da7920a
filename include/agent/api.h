/* The HTTP contract of the agent: the only module that knows HTTP and the freezer both. */
#pragma once

#include "agent/auth.h"
#include "agent/freezer.h"
#include "agent/selftest.h"
#include "common/http.h"

struct api;

struct api_config {
    sd_event *event;
    struct freezer *freezer;
    struct auth *auth;
    const struct selftest *selftest; /* of the start: /readyz tells it */
};

/* The server is the caller's to give listeners; it lives as long as the api. */
int api_open(struct api **ret, const struct api_config *config, struct error *error) MUST_CHECK;
struct api *api_close(struct api *api);
struct http_server *api_server(struct api *api);

/* The routes, for a test that walks them. */
extern const struct http_route api_routes[];
extern const size_t api_n_routes;
