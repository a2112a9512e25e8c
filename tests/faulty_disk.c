/* For LD_PRELOAD: a disk that fails. While the file $FAULTY_DISK_SWITCH is there, the kinds of call
 * that it names (list, open, read, stat, write) fail with EIO for what lies below
 * $FAULTY_DISK_FOLDER. Each failure appends a byte to $FAULTY_DISK_SWITCH.count.
 *
 * The C library's own calls do not come past here, so fopen and opendir stand for what they do. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Straight to the kernel: these must not fail themselves. */
static int raw_open(const char *path, int flags) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, 0600);
}

static int is_below(const char *path) {
    const char *folder = getenv("FAULTY_DISK_FOLDER");
    return folder && !strncmp(path, folder, strlen(folder));
}

static int is_on(const char *kind) {
    const char *path = getenv("FAULTY_DISK_SWITCH");
    char kinds[64] = "", counter[PATH_MAX];
    int file = path ? raw_open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    syscall(SYS_read, file, kinds, sizeof kinds - 1);
    syscall(SYS_close, file);
    if (!strstr(kinds, kind)) return 0;
    snprintf(counter, sizeof counter, "%s.count", path);
    file = raw_open(counter, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC);
    syscall(SYS_write, file, "x", 1);
    syscall(SYS_close, file);
    return 1;
}

/* Whether the call is to fail; then errno is set. */
static int fails(const char *kind, const char *path) {
    int before = errno;
    int is_faulty = path && is_below(path) && is_on(kind);
    errno = is_faulty ? EIO : before;
    return is_faulty;
}

/* The same for an open file, or for a name in an open folder. */
static int fails_at(const char *kind, int folder, const char *name) {
    char link[64], path[PATH_MAX] = "";
    int before = errno;
    if (name && (*name == '/' || folder == AT_FDCWD)) return fails(kind, name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
    errno = before;
    return fails(kind, path);
}

#define OPEN(name, at, ...)                                                                        \
    va_list more;                                                                                  \
    va_start(more, flags);                                                                         \
    mode_t mode = va_arg(more, mode_t);                                                            \
    va_end(more);                                                                                  \
    return fails_at("open", at, path) ? -1 : REAL(name)(__VA_ARGS__, flags, mode)

int open(const char *path, int flags, ...) {
    OPEN(open, AT_FDCWD, path);
}

int open64(const char *path, int flags, ...) {
    OPEN(open64, AT_FDCWD, path);
}

int openat(int folder, const char *path, int flags, ...) {
    OPEN(openat, folder, folder, path);
}

int openat64(int folder, const char *path, int flags, ...) {
    OPEN(openat64, folder, folder, path);
}

FILE *fopen(const char *path, const char *mode) {
    return fails("open", path) || fails("read", path) ? NULL : REAL(fopen)(path, mode);
}

FILE *fopen64(const char *path, const char *mode) {
    return fails("open", path) || fails("read", path) ? NULL : REAL(fopen64)(path, mode);
}

DIR *opendir(const char *path) {
    return fails("list", path) ? NULL : REAL(opendir)(path);
}

#define ON_FILE(kind, result, name, parameters, ...)                                               \
    result name parameters {                                                                       \
        return fails_at(kind, file, NULL) ? (result)-1 : REAL(name)(__VA_ARGS__);                  \
    }

ON_FILE("read", ssize_t, read, (int file, void *to, size_t size), file, to, size)
ON_FILE("read", ssize_t, readv, (int file, const struct iovec *to, int count), file, to, count)
ON_FILE("read", ssize_t, pread, (int file, void *to, size_t size, off_t at), file, to, size, at)
ON_FILE("read", ssize_t, pread64, (int file, void *to, size_t size, off64_t at), file, to, size, at)
ON_FILE("write", ssize_t, write, (int file, const void *from, size_t size), file, from, size)
ON_FILE("write", ssize_t, writev, (int file, const struct iovec *from, int n), file, from, n)
ON_FILE("write", ssize_t, pwrite, (int file, const void *from, size_t size, off_t at), file, from,
        size, at)
ON_FILE("write", ssize_t, pwrite64, (int file, const void *from, size_t size, off64_t at), file,
        from, size, at)

/* A page that cannot be read would end the process; the kernel refuses a mapping more politely. */
void *mmap(void *at, size_t size, int access, int flags, int file, off_t from) {
    if (file >= 0 && fails_at("read", file, NULL)) return MAP_FAILED;
    return REAL(mmap)(at, size, access, flags, file, from);
}

void *mmap64(void *at, size_t size, int access, int flags, int file, off64_t from) {
    if (file >= 0 && fails_at("read", file, NULL)) return MAP_FAILED;
    return REAL(mmap64)(at, size, access, flags, file, from);
}

#define ON_NAME(name, kind)                                                                        \
    int name(const char *path, struct kind *to) {                                                  \
        return fails("stat", path) ? -1 : REAL(name)(path, to);                                    \
    }

ON_NAME(stat, stat)
ON_NAME(stat64, stat64)
ON_NAME(lstat, stat)
ON_NAME(lstat64, stat64)

#define IN_FOLDER(name, kind)                                                                      \
    int name(int folder, const char *path, struct kind *to, int flags) {                           \
        return fails_at("stat", folder, path) ? -1 : REAL(name)(folder, path, to, flags);          \
    }

IN_FOLDER(fstatat, stat)
IN_FOLDER(fstatat64, stat64)
