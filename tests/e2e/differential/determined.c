/* Loaded in front of a redis-server (LD_PRELOAD) it makes two servers that are
 * given the same commands answer the same bytes: the wall clock stands still at
 * a time that the player sets, and what the server draws by chance (hash seeds,
 * SPOP, ACL GENPASS, run ids) comes from constant seeds.
 *
 * The monotonic clock goes on: the event loop's timers need it. DETERMINED_CLOCK
 * names a file that holds the time, a native int64_t of microseconds. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *clock_us;
static char seed_path[4096];

__attribute__((constructor)) static void determined_begin(void)
{
    const char *path = getenv("DETERMINED_CLOCK");
    int fd = path == NULL ? -1 : open(path, O_RDONLY);
    void *page =
        fd < 0 ? MAP_FAILED
               : mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        fputs("determined: DETERMINED_CLOCK names no file that can be read\n",
              stderr);
        abort();
    }
    close(fd);
    clock_us = page;
    snprintf(seed_path, sizeof(seed_path), "%s.seed", path);
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    int64_t now = *clock_us;
    (void)tz;
    tv->tv_sec = now / 1000000;
    tv->tv_usec = now % 1000000;
    return 0;
}

time_t time(time_t *out)
{
    time_t now = *clock_us / 1000000;
    if (out != NULL) {
        *out = now;
    }
    return now;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
    static int (*real)(clockid_t, struct timespec *);
    if (id != CLOCK_REALTIME) {
        if (real == NULL) {
            *(void **)&real = dlsym(RTLD_NEXT, "clock_gettime");
        }
        return real(id, ts);
    }
    int64_t now = *clock_us;
    ts->tv_sec = now / 1000000;
    ts->tv_nsec = now % 1000000 * 1000;
    return 0;
}

/* The server mixes it into its seeds. */
pid_t getpid(void)
{
    return 4711;
}

/* Under another name, so that the call of fopen64 inside is none of ours. */
static FILE *open_determined(const char *name,
                             const char *path,
                             const char *mode)
{
    FILE *(*real)(const char *, const char *);
    *(void **)&real = dlsym(RTLD_NEXT, name);
    bool random = path != NULL && strcmp(path, "/dev/urandom") == 0;
    return real(random ? seed_path : path, mode);
}

FILE *fopen(const char *restrict path, const char *restrict mode)
{
    return open_determined("fopen", path, mode);
}

FILE *fopen64(const char *restrict path, const char *restrict mode)
{
    return open_determined("fopen64", path, mode);
}
