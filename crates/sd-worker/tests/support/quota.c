/* Loaded before the C library (LD_PRELOAD): while the file QUOTA_USED_UP exists, nothing under the folder QUOTA_FOLDER can be
   made larger, as when the user's quota of the disk is used up. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int refused(int fd) {
    const char *folder = getenv("QUOTA_FOLDER"), *mark = getenv("QUOTA_USED_UP");
    char link[64], path[PATH_MAX];
    int kept = errno;
    if (!folder || !mark || access(mark, F_OK) != 0) {
        errno = kept;
        return 0;
    }
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    errno = kept;
    return length > 0 && (size_t)length >= strlen(folder) && strncmp(path, folder, strlen(folder)) == 0;
}

/* The C library's own function of that name, unless the write is refused. */
#define OR_REAL(name, type, ...)                              \
    if (refused(fd)) {                                        \
        errno = EDQUOT;                                       \
        return -1;                                            \
    }                                                         \
    return ((type)dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

typedef ssize_t (*write_t)(int, const void *, size_t);
typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
typedef ssize_t (*pwrite64_t)(int, const void *, size_t, off64_t);

ssize_t write(int fd, const void *bytes, size_t count) {
    OR_REAL(write, write_t, fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    OR_REAL(pwrite, pwrite_t, fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    OR_REAL(pwrite64, pwrite64_t, fd, bytes, count, at);
}
