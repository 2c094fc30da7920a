#include "agent/pressure.h"

#include <fcntl.h>
#include <string.h>

/* 150 ms of stall within 1 s, in microseconds; a window of less than 500 ms is not to be had. */
static const char threshold[] = "some 150000 1000000";

struct pressure {
    int fd;
    sd_event_source *source;
    void (*on_pressure)(void *userdata);
    void *userdata;
};

static int on_event(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
    struct pressure *pressure = userdata;

    (void)fd;
    if (revents & EPOLLERR) /* the trigger is gone, and would not stop to say so */
        return sd_event_source_set_enabled(source, SD_EVENT_OFF);
    pressure->on_pressure(pressure->userdata);
    return 0;
}

static int set_trigger(struct pressure *pressure, sd_event *event, struct error *error)
{
    pressure->fd = open("/proc/pressure/memory", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (pressure->fd < 0)
        return error_set(error, errno, "open /proc/pressure/memory");
    /* The terminating NUL belongs to it. */
    if (write(pressure->fd, threshold, sizeof threshold) < 0)
        return error_set(error, errno, "set a trigger on /proc/pressure/memory");
    int r = sd_event_add_io(event, &pressure->source, pressure->fd, EPOLLPRI, on_event, pressure);
    return r < 0 ? error_set(error, -r, "watch /proc/pressure/memory") : 0;
}

int pressure_open(struct pressure **ret, sd_event *event, void (*on_pressure)(void *userdata),
                  void *userdata, struct error *error)
{
    struct pressure *pressure = calloc(1, sizeof *pressure);

    if (!pressure)
        return error_set(error, ENOMEM, "watch memory pressure");
    pressure->fd = -1;
    pressure->on_pressure = on_pressure;
    pressure->userdata = userdata;
    int r = set_trigger(pressure, event, error);
    if (r < 0) {
        pressure_close(pressure);
        return r;
    }
    *ret = pressure;
    return 0;
}

struct pressure *pressure_close(struct pressure *pressure)
{
    if (pressure) {
        sd_event_source_disable_unref(pressure->source);
        close_fd(pressure->fd);
    }
    free(pressure);
    return NULL;
}
