/* A machine whose wall clock is wrong: shifts the real-time clock of one process, and nothing else.
 *
 * Loaded before libc (LD_PRELOAD). HOLDFAST_TEST_WALL_CLOCK names a control file that holds the
 * seconds by which the clock is ahead (negative: behind). Monotonic clocks and waits stay true, as
 * they do when an operator sets the clock. The file is read twice a second. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long offset_s;
static volatile long read_at_ms;

static int real_clock(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    return real(id, now);
}

static long ahead_s(void) {
    struct timespec now;
    real_clock(CLOCK_MONOTONIC, &now);
    long ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (ms - read_at_ms <= 500) return offset_s;
    read_at_ms = ms;
    const char *control = getenv("HOLDFAST_TEST_WALL_CLOCK");
    int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return offset_s;
    char text[32] = {0};
    if (read(file, text, sizeof text - 1) > 0) offset_s = atol(text);
    close(file);
    return offset_s;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    int failed = real_clock(id, now);
    if (!failed && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += ahead_s();
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)zone;
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
