/* A Redis client for what redis-benchmark is too coarse for. The targets take
 * turns within every round, so that whatever else the machine does meets all
 * of them alike.
 *
 * Usage: probe ROUNDS KEY NAME=PORT...
 *
 * Prints "NAME REPLY-BYTES MEDIAN-NS P99-NS" for each target. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    TARGETS_MAX = 16,
    REQUEST_MAX = 512,
    BUFFER_BYTES = 1024 * 1024
};

struct target {
    const char *name;
    int fd;
    uint64_t reply_bytes;
    uint64_t *took_ns; /* owned, one for each round */
};

static uint64_t now_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int connect_to(const char *port_text)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_port = htons((uint16_t)strtoul(port_text, NULL, 10));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) {
        return -1;
    }
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (connect(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

/* The size of a whole bulk reply, from its first bytes; 0 while they do not
 * say it. */
static uint64_t reply_size(const char *data, size_t size)
{
    const char *end = memchr(data, '\n', size);
    if (end == NULL || data[0] != '$') {
        return 0;
    }
    uint64_t header = (uint64_t)(end - data) + 1;
    return header + strtoul(data + 1, NULL, 10) + 2;
}

/* Read one bulk reply and forget it. Returns its size, 0 on failure. */
static uint64_t read_reply(int fd, char *buffer)
{
    uint64_t got = 0;
    uint64_t expected = 0;
    while (expected == 0 || got < expected) {
        size_t offset = expected == 0 ? (size_t)got : 0;
        ssize_t n = read(fd, buffer + offset, BUFFER_BYTES - offset);
        if (n <= 0) {
            return 0;
        }
        got += (uint64_t)n;
        if (expected == 0) {
            expected = reply_size(buffer, (size_t)got);
        }
    }
    return got == expected ? got : 0;
}

static bool target_ask(struct target *t,
                       const char *request,
                       size_t round,
                       char *buffer)
{
    size_t size = strlen(request);
    uint64_t began = now_ns();
    if (write(t->fd, request, size) != (ssize_t)size) {
        return false;
    }
    t->reply_bytes = read_reply(t->fd, buffer);
    t->took_ns[round] = now_ns() - began;
    return t->reply_bytes > 0;
}

static int compare(const void *a, const void *b)
{
    const uint64_t *x = a;
    const uint64_t *y = b;
    return (*x > *y) - (*x < *y);
}

static void target_print(struct target *t, size_t rounds)
{
    qsort(t->took_ns, rounds, sizeof *t->took_ns, compare);
    (void)printf("%s %llu %llu %llu\n", t->name,
                 (unsigned long long)t->reply_bytes,
                 (unsigned long long)t->took_ns[rounds / 2],
                 (unsigned long long)t->took_ns[rounds * 99 / 100]);
}

/* text is "NAME=PORT"; it is cut in two. */
static bool target_open(struct target *t, char *text, size_t rounds)
{
    char *equals = strchr(text, '=');
    if (equals == NULL) {
        return false;
    }
    *equals = '\0';
    t->name = text;
    t->fd = connect_to(equals + 1);
    t->took_ns = calloc(rounds, sizeof *t->took_ns);
    return t->fd >= 0 && t->took_ns != NULL;
}

static bool run(struct target *targets,
                size_t n,
                const char *request,
                size_t rounds,
                char *buffer)
{
    for (size_t round = 0; round < rounds; round++) {
        for (size_t i = 0; i < n; i++) {
            if (!target_ask(&targets[i], request, round, buffer)) {
                (void)fprintf(stderr, "probe: %s failed\n", targets[i].name);
                return false;
            }
        }
    }
    return true;
}

static bool targets_open(struct target *targets,
                         size_t n,
                         char **texts,
                         size_t rounds)
{
    for (size_t i = 0; i < n; i++) {
        if (!target_open(&targets[i], texts[i], rounds)) {
            (void)fprintf(stderr, "probe: cannot reach %s\n", texts[i]);
            return false;
        }
    }
    return true;
}

int main(int argc, char **argv)
{
    static const char format[] = "*2\r\n$3\r\nGET\r\n$%zu\r\n%s\r\n";
    struct target targets[TARGETS_MAX] = { 0 };
    size_t n = argc > 3 ? (size_t)argc - 3 : 0;
    size_t rounds = argc > 3 ? strtoul(argv[1], NULL, 10) : 0;
    if (n == 0 || n > TARGETS_MAX || rounds == 0) {
        (void)fprintf(stderr, "usage: probe ROUNDS KEY NAME=PORT...\n");
        return 2;
    }
    char request[REQUEST_MAX];
    int size =
        snprintf(request, sizeof request, format, strlen(argv[2]), argv[2]);
    char *buffer = malloc(BUFFER_BYTES);
    bool well = size > 0 && (size_t)size < sizeof request && buffer != NULL &&
                targets_open(targets, n, argv + 3, rounds) &&
                run(targets, n, request, rounds, buffer);
    for (size_t i = 0; i < n; i++) {
        if (well) {
            target_print(&targets[i], rounds);
        }
        free(targets[i].took_ns); /* the sockets end with the process */
    }
    free(buffer);
    return well ? 0 : 1;
}
