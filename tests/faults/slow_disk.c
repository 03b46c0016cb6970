/* A disk that takes its time: every write to a file of SQLite waits while a control file says so.
 *
 * Loaded before libc (LD_PRELOAD). HOLDFAST_TEST_SLOW_DISK names the control file; it holds the
 * milliseconds that each write waits, and a missing one means none. Only files whose path contains
 * ".sqlite" are slow. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static long wanted_ms(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    if (!strstr(path, ".sqlite")) return 0;
    const char *control = getenv("HOLDFAST_TEST_SLOW_DISK");
    FILE *file = control ? fopen(control, "r") : NULL;
    if (!file) return 0;
    long ms = 0;
    if (fscanf(file, "%ld", &ms) != 1) ms = 0;
    fclose(file);
    return ms;
}

static void wait_for(int fd) {
    long ms = wanted_ms(fd);
    if (ms <= 0) return;
    struct timespec pause = {ms / 1000, (ms % 1000) * 1000000};
    nanosleep(&pause, NULL);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    static ssize_t (*real)(int, const void *, size_t, off64_t);
    if (!real) real = dlsym(RTLD_NEXT, "pwrite64");
    wait_for(fd);
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    return pwrite64(fd, data, size, at);
}
