/* Makes the k-th file operation below a folder fail; loaded with LD_PRELOAD by io_faults.py.
 *
 * It stands between the process and libc, so that what C++ libraries write (pyarrow, DuckDB) fails
 * as well as what Python writes. Operations are known by the path they reach: that of a descriptor
 * is read from /proc, so nothing has to be kept for each.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

/* In the order of io_faults.KINDS. */
enum kind { OPEN, CREATE, READ, WRITE, FLUSH, RENAME, MKDIR, REMOVE, RESIZE, CLOSE, KINDS };

/* What was seen, in memory that the parent process shares: io_faults.Report. */
struct report {
    long seen[KINDS];
    long counted; /* operations of the kinds that may fail */
    long failed;
    long kind; /* of the first that failed, and its path */
    char path[PATH_MAX];
};

struct fault {
    unsigned kinds; /* a bit for each kind that is counted and may fail */
    long at;        /* the k-th of them fails, from 1 */
    int error;      /* with this errno; 0: a write of half the bytes */
    unsigned later; /* and after it all operations of these kinds */
};

static struct report *report;
static struct fault fault;
static char folder[PATH_MAX];

void faults_arm(const char *below, struct fault wanted, struct report *shared)
{
    snprintf(folder, sizeof folder, "%s", below);
    fault = wanted;
    report = shared;
}

/* Return whether this operation has to fail, and set errno. */
static int fails(enum kind kind, const char *path)
{
    size_t length = strlen(folder);
    if (!report || strncmp(path, folder, length) || (path[length] && path[length] != '/'))
        return 0;
    __atomic_add_fetch(&report->seen[kind], 1, __ATOMIC_RELAXED);
    if (!(fault.kinds >> kind & 1))
        return 0;
    long number = __atomic_add_fetch(&report->counted, 1, __ATOMIC_RELAXED);
    if (number < fault.at || (number > fault.at && !(fault.later >> kind & 1)))
        return 0;
    if (__atomic_fetch_add(&report->failed, 1, __ATOMIC_RELAXED) == 0) {
        report->kind = kind;
        snprintf(report->path, sizeof report->path, "%s", path);
    }
    errno = fault.error;
    return 1;
}

static void path_of(int descriptor, char *path)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static int fails_on(enum kind kind, int descriptor)
{
    char path[PATH_MAX];
    int before = errno;
    if (!report)
        return 0;
    path_of(descriptor, path);
    errno = before;
    return fails(kind, path);
}

/* As `fails`, for a path that may be relative to the folder of a descriptor. */
static int fails_at(enum kind kind, int descriptor, const char *name)
{
    char path[2 * PATH_MAX + 1];
    if (name[0] == '/' || descriptor == AT_FDCWD)
        return fails(kind, name);
    path_of(descriptor, path);
    size_t length = strlen(path);
    snprintf(path + length, sizeof path - length, "/%s", name);
    return fails(kind, path);
}

/* The next definition of a function, libc's. */
#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(real))dlsym(RTLD_NEXT, #name)

#define OPENS(name) \
    int name(const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return fails(flags & O_CREAT ? CREATE : OPEN, path) ? -1 : real(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    int name(int at, const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        return fails_at(flags & O_CREAT ? CREATE : OPEN, at, path) ? -1 : real(at, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

#define OPENS_STREAM(name) \
    FILE *name(const char *path, const char *mode) \
    { \
        REAL(name); \
        return fails(strpbrk(mode, "wa") ? CREATE : OPEN, path) ? NULL : real(path, mode); \
    }
OPENS_STREAM(fopen)
OPENS_STREAM(fopen64)

DIR *opendir(const char *path)
{
    REAL(opendir);
    return fails(OPEN, path) ? NULL : real(path);
}

#define READS(name, parameters, ...) \
    ssize_t name parameters \
    { \
        REAL(name); \
        return fails_on(READ, fd) ? -1 : real(__VA_ARGS__); \
    }
READS(read, (int fd, void *data, size_t size), fd, data, size)
READS(pread, (int fd, void *data, size_t size, off_t at), fd, data, size, at)
READS(pread64, (int fd, void *data, size_t size, off64_t at), fd, data, size, at)

/* A failing write with error 0 is a short one: half of the bytes are written. */
#define WRITES(name, parameters, ...) \
    ssize_t name parameters \
    { \
        REAL(name); \
        if (fails_on(WRITE, fd)) { \
            if (fault.error) \
                return -1; \
            size = (size + 1) / 2; \
        } \
        return real(__VA_ARGS__); \
    }
WRITES(write, (int fd, const void *data, size_t size), fd, data, size)
WRITES(pwrite, (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
WRITES(pwrite64, (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
WRITES(writev, (int fd, const struct iovec *data, int size), fd, data, size)

#define OF_DESCRIPTOR(kind, name, parameters, ...) \
    int name parameters \
    { \
        REAL(name); \
        return fails_on(kind, fd) ? -1 : real(__VA_ARGS__); \
    }
OF_DESCRIPTOR(FLUSH, fsync, (int fd), fd)
OF_DESCRIPTOR(FLUSH, fdatasync, (int fd), fd)
OF_DESCRIPTOR(RESIZE, ftruncate, (int fd, off_t size), fd, size)
OF_DESCRIPTOR(RESIZE, ftruncate64, (int fd, off64_t size), fd, size)
OF_DESCRIPTOR(RESIZE, fallocate, (int fd, int mode, off_t at, off_t size), fd, mode, at, size)

#define OF_PATH(kind, name, parameters, at, path, ...) \
    int name parameters \
    { \
        REAL(name); \
        return fails_at(kind, at, path) ? -1 : real(__VA_ARGS__); \
    }
OF_PATH(RENAME, rename, (const char *from, const char *to), AT_FDCWD, to, from, to)
OF_PATH(RENAME, renameat, (int at, const char *from, int there, const char *to), there, to, at, from, there, to)
OF_PATH(MKDIR, mkdir, (const char *path, mode_t mode), AT_FDCWD, path, path, mode)
OF_PATH(MKDIR, mkdirat, (int at, const char *path, mode_t mode), at, path, at, path, mode)
OF_PATH(REMOVE, unlink, (const char *path), AT_FDCWD, path, path)
OF_PATH(REMOVE, rmdir, (const char *path), AT_FDCWD, path, path)
OF_PATH(REMOVE, remove, (const char *path), AT_FDCWD, path, path)
OF_PATH(REMOVE, unlinkat, (int at, const char *path, int flags), at, path, at, path, flags)

/* As on Linux, the descriptor is gone whatever close returns. */
int close(int fd)
{
    REAL(close);
    int failed = fails_on(CLOSE, fd);
    int error = errno;
    int result = real(fd);
    if (!failed)
        return result;
    errno = error;
    return -1;
}
