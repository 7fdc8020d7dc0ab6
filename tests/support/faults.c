// SPDX-License-Identifier: LGPL-2.1-or-later
// Loaded into a process (LD_PRELOAD), has the n-th of its calls that change a file system fail, or kills or
// stops it there. The file that NESTD_FAULTS names, four ints, says which; tests/support/faults.py writes it.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { KILL_BEFORE = -1, KILL_AFTER = -2, HANG = -3 };

static struct control {
    int at;      // the number of the call, from 0; -1: none
    int what;    // the errno, or one of the above
    int lasting; // whether all that follow fail too
    int calls;   // how many there were; counted here
} *control;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("NESTD_FAULTS");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0)
        return;
    void *found = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (found != MAP_FAILED)
        control = found;
}

// What happens at this call: 0, an errno, or KILL_AFTER.
static int now(void)
{
    if (!control)
        return 0;
    int call = control->calls++;
    if (control->at < 0 || call < control->at || (call > control->at && !control->lasting))
        return 0;
    if (control->what == KILL_BEFORE)
        kill(getpid(), SIGKILL);
    if (control->what == HANG)
        for (;;)
            pause();
    return control->what;
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAULTY(call) \
    do { \
        int fault = now(); \
        if (fault > 0) { \
            errno = fault; \
            return -1; \
        } \
        __typeof__(call) result = (call); \
        if (fault == KILL_AFTER) \
            kill(getpid(), SIGKILL); \
        return result; \
    } while (0)

int fsync(int file)
{
    REAL(fsync);
    FAULTY(real(file));
}

int renameat(int from, const char *old, int to, const char *new)
{
    REAL(renameat);
    FAULTY(real(from, old, to, new));
}

int unlinkat(int folder, const char *name, int flags)
{
    REAL(unlinkat);
    FAULTY(real(folder, name, flags));
}

int mkdirat(int folder, const char *name, mode_t mode)
{
    REAL(mkdirat);
    FAULTY(real(folder, name, mode));
}

ssize_t write(int file, const void *data, size_t length)
{
    REAL(write);
    struct stat found;
    if (file <= 2 || fstat(file, &found) != 0 || !S_ISREG(found.st_mode))
        return real(file, data, length);
    FAULTY(real(file, data, length));
}

#define OPEN(name) \
    int name(int folder, const char *path, int flags, ...) \
    { \
        REAL(name); \
        va_list more; \
        va_start(more, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0; \
        va_end(more); \
        if (!(flags & O_CREAT)) \
            return real(folder, path, flags, mode); \
        FAULTY(real(folder, path, flags, mode)); \
    }

OPEN(openat)
OPEN(openat64)
