// Preloaded by tests: below FULL_FOLDER the disk is full after FULL_AFTER bytes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static long written = 0;

static int is_full(int file, size_t more) {
    const char *folder = getenv("FULL_FOLDER");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0 || !folder) return 0;
    path[length] = 0;
    if (!strstr(path, folder)) return 0;
    if (written + (long)more > atol(getenv("FULL_AFTER"))) return 1;
    written += more;
    return 0;
}

ssize_t write(int file, const void *bytes, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (!is_full(file, count)) return real(file, bytes, count);
    errno = ENOSPC;
    return -1;
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    ssize_t (*real)(int, const struct iovec *, int) = dlsym(RTLD_NEXT, "writev");
    size_t all = 0;
    for (int i = 0; i < count; i++) all += parts[i].iov_len;
    if (!is_full(file, all)) return real(file, parts, count);
    errno = ENOSPC;
    return -1;
}
