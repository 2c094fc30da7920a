/* racer SOCKET POD_UID MODE PORT ROUNDS: freezes a pod that serves `echo` while requests reach it,
 * and counts those that nobody answers. The time between the two is swept over the whole freeze:
 * from before it is asked for until after it is done.
 *
 *   connect    a request on a new connection each round
 *   keep       one each round, all on one connection
 *   busy       one after the other on one connection, without a pause
 *   datagram   a datagram each round, and once more where no answer comes: of one that was read and
 *              not answered no trace is left that the agent could find
 *
 * Prints a line of JSON. The pod runs at the end. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define DEADLINE_MSEC    3000
#define CALIBRATE_ROUNDS 20
#define BUSY_REQUESTS    3 /* after the freeze was answered */
#define LOST_SHOWN       20

/* Steps of this part of a circle never meet, and any number of them in a row is spread evenly. */
#define GOLDEN 0.618033988749895

enum mode { CONNECT, KEEP, BUSY, DATAGRAM };
static const char *const modes[] = {
    [CONNECT] = "connect", [KEEP] = "keep", [BUSY] = "busy", [DATAGRAM] = "datagram"
};

struct figures {
    unsigned frozen, refused, repeated, lost;
    long latency_max, span; /* us */
    long lost_at[LOST_SHOWN];
};

static const char *uid;
static int agent = -1, client = -1;
static bool freeze_is_pending;
static enum mode mode;
static struct sockaddr_in server = { .sin_family = AF_INET };
static struct figures figures;

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static _Noreturn void fail(const char *what)
{
    fprintf(stderr, "racer: %s\n", what);
    exit(1);
}

/* ---- time ---- */

static long now_usec(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void wait_until(long usec)
{
    struct timespec t = { usec / 1000000, usec % 1000000 * 1000 };

    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) == EINTR)
        ;
}

/* ---- the agent ---- */

static void open_agent(const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };

    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    agent = socket(AF_UNIX, SOCK_STREAM, 0);
    if (agent < 0 || connect(agent, (struct sockaddr *)&address, sizeof address) < 0)
        die(path);
}

static void ask(const char *verb, const char *more)
{
    char body[256], text[512];

    int size = snprintf(body, sizeof body, "{\"pod_uid\": \"%s\"%s}", uid, more);
    int n = snprintf(text, sizeof text,
                     "POST /%s HTTP/1.1\r\nHost: node\r\nContent-Type: application/json\r\n"
                     "Content-Length: %d\r\n\r\n%s",
                     verb, size, body);
    if (write(agent, text, (size_t)n) != n)
        die("ask the agent");
}

static bool is_whole(const char *text, size_t len)
{
    const char *end = strstr(text, "\r\n\r\n");
    const char *length = strcasestr(text, "\r\nContent-Length:");

    return end && length && len >= (size_t)(end + 4 - text) + strtoul(length + 17, NULL, 10);
}

static int read_status(void)
{
    char text[65536] = "";
    size_t len = 0;

    while (!is_whole(text, len)) {
        ssize_t n = read(agent, text + len, sizeof text - 1 - len);
        if (n <= 0)
            die("read from the agent");
        len += (size_t)n;
        text[len] = '\0';
    }
    return atoi(text + strlen("HTTP/1.1 "));
}

static void ask_freeze(void)
{
    ask("freeze", ", \"reclaim\": \"off\"");
    freeze_is_pending = true;
}

static void end_freeze(void)
{
    int status = freeze_is_pending ? read_status() : 0;

    freeze_is_pending = false;
    if (status == 200)
        figures.frozen++;
    else if (status == 409)
        figures.refused++; /* woken in the middle of it */
    else if (status != 0)
        fail("the freeze was answered with an error");
}

static void thaw(void)
{
    end_freeze();
    ask("thaw", "");
    if (read_status() != 200)
        fail("the thaw failed");
}

/* ---- the client ---- */

static void open_client(void)
{
    int one = 1;

    client = socket(AF_INET, mode == DATAGRAM ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (client < 0 || connect(client, (struct sockaddr *)&server, sizeof server) < 0)
        die("connect");
    if (mode != DATAGRAM && setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) < 0)
        die("TCP_NODELAY");
}

static void close_client(void)
{
    close(client);
    client = -1;
}

static void request(uint32_t number)
{
    if (client < 0)
        open_client();
    if (write(client, &number, sizeof number) != sizeof number)
        die("send a request");
}

static void take_answer(uint32_t number)
{
    uint32_t got = 0;

    if (read(client, &got, sizeof got) != sizeof got || got != number)
        fail("another request was answered");
}

static bool answer_comes(int msec)
{
    struct pollfd fd = { .fd = client, .events = POLLIN };

    return poll(&fd, 1, msec) == 1;
}

static void lose(long offset)
{
    if (figures.lost < LOST_SHOWN)
        figures.lost_at[figures.lost] = offset;
    figures.lost++;
}

static bool is_answered(uint32_t number)
{
    if (answer_comes(DEADLINE_MSEC))
        return true;
    if (mode != DATAGRAM)
        return false;
    figures.repeated++;
    request(number);
    return answer_comes(DEADLINE_MSEC);
}

/* The thaw that everybody can ask for must bring the answer, whatever has become of the wake. */
static void await_answer(uint32_t number, long asked, long offset)
{
    if (!is_answered(number)) {
        lose(offset);
        thaw();
        if (!answer_comes(DEADLINE_MSEC))
            fail("a request was lost for good");
    }
    take_answer(number);
    if (now_usec() - asked > figures.latency_max)
        figures.latency_max = now_usec() - asked;
}

/* ---- rounds ---- */

static double sweep(unsigned i)
{
    double at = i * GOLDEN;

    return at - (double)(long)at;
}

/* One request, from half a span before the freeze is asked for until a span and a half after. */
static void race(uint32_t i)
{
    long offset = (long)((sweep(i) * 2 - 0.5) * (double)figures.span);
    long start = now_usec() + figures.span;

    wait_until(offset < 0 ? start + offset : start);
    if (offset >= 0)
        ask_freeze();
    else
        request(i);
    wait_until(offset < 0 ? start : start + offset);
    long asked = now_usec();
    if (offset >= 0)
        request(i);
    else
        ask_freeze();
    await_answer(i, asked, offset);
    end_freeze();
    if (mode != KEEP)
        close_client(); /* with what may still come twice */
}

static void exchange(uint32_t *number)
{
    long asked = now_usec();

    request(++*number);
    await_answer(*number, asked, 0);
}

static bool agent_has_answered(void)
{
    struct pollfd fd = { .fd = agent, .events = POLLIN };

    return poll(&fd, 1, 0) == 1;
}

/* The freeze is asked for at any point of a request. */
static void hurry(unsigned i, uint32_t *number)
{
    long offset = (long)(sweep(i) * (double)figures.span), asked;

    exchange(number);
    asked = now_usec();
    request(++*number);
    if (!answer_comes((int)(offset / 1000)))
        wait_until(asked + offset);
    ask_freeze();
    await_answer(*number, asked, offset);
    while (freeze_is_pending && !agent_has_answered())
        exchange(number);
    end_freeze();
    for (int k = 0; k < BUSY_REQUESTS; k++)
        exchange(number);
}

/* How long a freeze takes that nothing disturbs. */
static void calibrate(void)
{
    long sum = 0;

    for (int i = 0; i < CALIBRATE_ROUNDS; i++) {
        long start = now_usec();
        ask_freeze();
        end_freeze();
        sum += now_usec() - start;
        thaw();
    }
    if (figures.refused > 0)
        fail("something else disturbs the freeze");
    figures.frozen = 0;
    figures.span = sum / CALIBRATE_ROUNDS;
}

static void print_figures(void)
{
    printf("{\"frozen\": %u, \"refused\": %u, \"repeated\": %u, \"lost\": %u, "
           "\"latency_max\": %ld, \"span\": %ld, \"lost_at\": [",
           figures.frozen, figures.refused, figures.repeated, figures.lost, figures.latency_max,
           figures.span);
    for (unsigned i = 0; i < figures.lost && i < LOST_SHOWN; i++)
        printf("%s%ld", i ? ", " : "", figures.lost_at[i]);
    printf("]}\n");
}

static enum mode parse_mode(const char *text)
{
    for (unsigned i = 0; i < sizeof modes / sizeof *modes; i++)
        if (strcmp(text, modes[i]) == 0)
            return i;
    fail("no such mode");
}

int main(int argc, char **argv)
{
    uint32_t number = 0;

    if (argc != 6)
        fail("usage: racer SOCKET POD_UID MODE PORT ROUNDS");
    uid = argv[2];
    mode = parse_mode(argv[3]);
    server.sin_port = htons((uint16_t)atoi(argv[4]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    open_agent(argv[1]);
    calibrate();
    for (unsigned i = 0; i < (unsigned)atoi(argv[5]); i++) {
        if (mode == BUSY)
            hurry(i, &number);
        else
            race(i);
        thaw();
    }
    print_figures();
    return 0;
}
