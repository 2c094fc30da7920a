/* Who may call the agent.
 *
 *   Unix socket       root, and the agent's own user (the kernel's word, SO_PEERCRED)
 *   TCP with a token  whoever has one of the tokens of the file; it is read anew when it changes
 *   TCP on loopback   without a token only with `anonymous_loopback`: anybody may read; a write is
 *                     for processes of root or of the agent's user, which the kernel tells by the
 *                     socket at the other end (sock_diag(7)). No anonymous write, ever.
 *   otherwise         nobody */
#pragma once

#include "common/http.h"

#define AUTH_TOKENS_MAX 16
#define AUTH_TOKEN_SIZE 4096 /* a service account's token is below 2 KiB */
#define AUTH_TOKEN_MIN  16   /* shorter ones are guessed */

struct auth;

/* token_file may be NULL. A file that cannot be read, or holds no token, is an error. */
int auth_open(struct auth **ret, const char *token_file, bool anonymous_loopback,
              struct error *error) MUST_CHECK;
struct auth *auth_close(struct auth *auth);

enum http_verdict auth_check(struct auth *auth, const struct http_caller *caller,
                             enum http_access access);
