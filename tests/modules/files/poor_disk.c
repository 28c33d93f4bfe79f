// Preloaded by the test: the disk knows no modes, links, locks, exchanges, or syncs of folders.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/stat.h>

static int lacking(int code) { errno = code; return -1; }

int chmod(const char *path, mode_t mode) { return lacking(EPERM); }
int fchmod(int file, mode_t mode) { return lacking(EPERM); }
int symlink(const char *target, const char *path) { return lacking(EPERM); }
int flock(int file, int operation) { return lacking(ENOLCK); }
int renameat2(int from, const char *a, int to, const char *b, unsigned flags) { return lacking(EINVAL); }

int fsync(int file) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    struct stat status;
    if (!fstat(file, &status) && S_ISDIR(status.st_mode)) return lacking(EINVAL);
    return real(file);
}
