/* Loaded before the C library (LD_PRELOAD): the files in the folder SMALL_DISK take SMALL_DISK_BYTES together and no more, as
   on a disk of that size. Folders in it are not looked into. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define BLOCK 4096LL

static long long blocks(long long bytes) {
    return (bytes + BLOCK - 1) / BLOCK * BLOCK;
}

static long long taken(const char *folder) {
    long long sum = 0;
    DIR *entries = opendir(folder);
    if (!entries) return 0;
    for (struct dirent *entry; (entry = readdir(entries));) {
        struct stat about;
        if (fstatat(dirfd(entries), entry->d_name, &about, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(about.st_mode))
            sum += blocks(about.st_size);
    }
    closedir(entries);
    return sum;
}

/* Whether the file may reach to `end`. */
static int has_room(int fd, long long end) {
    const char *folder = getenv("SMALL_DISK"), *bytes = getenv("SMALL_DISK_BYTES");
    char link[64], path[PATH_MAX];
    struct stat about;
    int kept = errno, room = 1;
    if (folder && bytes) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        ssize_t length = readlink(link, path, sizeof path);
        size_t start = strlen(folder);
        if (length > (ssize_t)start && strncmp(path, folder, start) == 0 && path[start] == '/' &&
            fstat(fd, &about) == 0) {
            long long more = blocks(end) - blocks(about.st_size);
            room = more <= 0 || taken(folder) + more <= atoll(bytes);
        }
    }
    errno = kept;
    return room;
}

typedef ssize_t (*write_t)(int, const void *, size_t);
typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
typedef ssize_t (*pwrite64_t)(int, const void *, size_t, off64_t);

/* The C library's own function of that name, unless the disk is full. */
#define OR_REAL(name, type, end, ...)                         \
    if (!has_room(fd, (long long)(end))) {                    \
        errno = ENOSPC;                                       \
        return -1;                                            \
    }                                                         \
    return ((type)dlsym(RTLD_NEXT, #name))(__VA_ARGS__)

ssize_t write(int fd, const void *bytes, size_t count) {
    struct stat about;
    int kept = errno;
    off_t at = lseek(fd, 0, SEEK_CUR);
    if (at < 0) at = 0;
    if ((fcntl(fd, F_GETFL) & O_APPEND) && fstat(fd, &about) == 0) at = about.st_size;
    errno = kept;
    OR_REAL(write, write_t, at + count, fd, bytes, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    OR_REAL(pwrite, pwrite_t, at + count, fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    OR_REAL(pwrite64, pwrite64_t, at + count, fd, bytes, count, at);
}
