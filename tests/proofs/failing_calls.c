/* A library for LD_PRELOAD: call number `target` of the C library that concerns the store fails.
 *
 * arm() says which: it counts calls of the kinds in `wanted` on paths that contain `needle`. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { CREATE = 1, WRITE = 2, FSYNC = 4, RENAME = 8, MKDIR = 16, UNLINK = 32, CHMOD = 64,
       READ = 128, OPEN = 256, CLOSE = 512, FLOCK = 1024, FTRUNCATE = 2048 };

static char needle[PATH_MAX];
static long target, seen[12];
static int error, stays;
static unsigned wanted;

/* stays: later calls of these kinds fail, too. */
void arm(const char *part, long number, int code, int for_ever, unsigned kinds) {
  snprintf(needle, sizeof needle, "%s", part);
  memset(seen, 0, sizeof seen);
  target = number;
  error = code;
  stays = for_ever;
  wanted = kinds;
}

/* How many calls of some kinds there were. */
long count(unsigned kinds) {
  long sum = 0;
  for (int bit = 0; bit < 12; bit++)
    if (kinds & 1u << bit) sum += seen[bit];
  return sum;
}

static int fails(unsigned kind, const char *path) {
  if (!(wanted & kind) || !path || !strstr(path, needle)) return 0;
  seen[__builtin_ctz(kind)]++;
  long number = count(wanted);
  if (!target || number < target || (number > target && !stays)) return 0;
  errno = error;
  return 1;
}

static const char *path_of(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length < 0) return NULL;
  buffer[length] = 0;
  return buffer;
}

/* The path of a name in an open folder. */
static const char *below(int folder, const char *name, char *buffer) {
  char above[PATH_MAX];
  if (name[0] == '/' || folder == AT_FDCWD || !path_of(folder, above)) return name;
  snprintf(buffer, PATH_MAX, "%.2000s/%.2000s", above, name);
  return buffer;
}

#define REAL(name) \
  static __typeof__(&name) real; \
  if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static unsigned kind_of(int flags) {
  return flags & (O_CREAT | O_WRONLY | O_RDWR) ? CREATE : OPEN;
}

#define OPENS(name, parameters, arguments, folder) \
  int name parameters { \
    REAL(name); \
    mode_t mode = 0; \
    char buffer[PATH_MAX]; \
    if (flags & (O_CREAT | O_TMPFILE)) { \
      va_list rest; \
      va_start(rest, flags); \
      mode = va_arg(rest, mode_t); \
      va_end(rest); \
    } \
    if (fails(kind_of(flags), below(folder, path, buffer))) return -1; \
    return real arguments; \
  }
OPENS(open, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode), AT_FDCWD)
OPENS(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)
OPENS(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode), at)

#define WITH_FD(type, name, kind, parameters, arguments) \
  type name parameters { \
    REAL(name); \
    char buffer[PATH_MAX]; \
    if (wanted & kind && fails(kind, path_of(fd, buffer))) return -1; \
    return real arguments; \
  }
WITH_FD(ssize_t, write, WRITE, (int fd, const void *data, size_t size), (fd, data, size))
WITH_FD(ssize_t, read, READ, (int fd, void *data, size_t size), (fd, data, size))
WITH_FD(int, fsync, FSYNC, (int fd), (fd))
WITH_FD(int, fchmod, CHMOD, (int fd, mode_t mode), (fd, mode))
WITH_FD(int, flock, FLOCK, (int fd, int operation), (fd, operation))
WITH_FD(int, ftruncate, FTRUNCATE, (int fd, off_t size), (fd, size))
WITH_FD(int, ftruncate64, FTRUNCATE, (int fd, off64_t size), (fd, size))

int close(int fd) { /* it closes, and reports an error all the same */
  REAL(close);
  char buffer[PATH_MAX];
  int failed = wanted & CLOSE && fails(CLOSE, path_of(fd, buffer));
  int result = real(fd);
  if (failed) errno = error;
  return failed ? -1 : result;
}

#define WITH_PATH(name, kind, parameters, arguments, folder) \
  int name parameters { \
    REAL(name); \
    char buffer[PATH_MAX]; \
    if (fails(kind, below(folder, path, buffer))) return -1; \
    return real arguments; \
  }
WITH_PATH(rename, RENAME, (const char *path, const char *new), (path, new), AT_FDCWD)
WITH_PATH(renameat, RENAME, (int at, const char *path, int to, const char *new),
          (at, path, to, new), at)
WITH_PATH(mkdir, MKDIR, (const char *path, mode_t mode), (path, mode), AT_FDCWD)
WITH_PATH(chmod, CHMOD, (const char *path, mode_t mode), (path, mode), AT_FDCWD)
WITH_PATH(fchmodat, CHMOD, (int at, const char *path, mode_t mode, int flags),
          (at, path, mode, flags), at)
WITH_PATH(unlink, UNLINK, (const char *path), (path), AT_FDCWD)
WITH_PATH(rmdir, UNLINK, (const char *path), (path), AT_FDCWD)
