#include "agent/privileges.h"

#include <stdbool.h>

#include <cap-ng.h>
#include <linux/capability.h>
#include <sys/prctl.h>

static const struct {
    unsigned capability;
    unsigned uses;
} needed[] = {
    { CAP_NET_ADMIN, PRIVILEGES_TRIGGER },
    { CAP_BPF, PRIVILEGES_TRIGGER },
    { CAP_SYS_ADMIN, PRIVILEGES_TRIGGER },
    { CAP_SYS_PTRACE, PRIVILEGES_TRIGGER | PRIVILEGES_PREFETCH },
    { CAP_SYS_NICE, PRIVILEGES_PREFETCH },
};

int privileges_drop(unsigned uses, struct error *error)
{
    bool keep[ARRAY_SIZE(needed)];

    if (capng_get_caps_process() < 0)
        return error_set(error, EPERM, "read the capabilities");
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        keep[i] =
            (needed[i].uses & uses) && capng_have_capability(CAPNG_PERMITTED, needed[i].capability);
    capng_clear(CAPNG_SELECT_CAPS);
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++)
        if (keep[i])
            capng_update(CAPNG_ADD, CAPNG_EFFECTIVE | CAPNG_PERMITTED, needed[i].capability);
    if (capng_apply(CAPNG_SELECT_CAPS) < 0)
        return error_set(error, EPERM, "drop capabilities");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_set(error, errno, "set no_new_privs");
    return 0;
}
