/* Preloaded (LD_PRELOAD) under a process whose disk shall fail while the file $FAILING_DISK exists:
   with "fsync" in it every sync of a file fails with EIO, with "full" every write to one fails with ENOSPC
   and is torn: its first half is written. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int failing(const char *what, int file) {
    const char *path = getenv("FAILING_DISK");
    struct stat facts;
    char text[16] = {0};
    int control;
    if (path == NULL || fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode)) return 0;
    control = open(path, O_RDONLY | O_CLOEXEC);
    if (control < 0) return 0;
    if (read(control, text, sizeof text - 1) < 0) text[0] = 0;
    close(control);
    return strstr(text, what) != NULL;
}

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, #name))

int fsync(int file) {
    if (failing("fsync", file)) { errno = EIO; return -1; }
    return REAL(int (*)(int), fsync)(file);
}
int fdatasync(int file) {
    if (failing("fsync", file)) { errno = EIO; return -1; }
    return REAL(int (*)(int), fdatasync)(file);
}
ssize_t write(int file, const void *data, size_t size) {
    if (failing("full", file)) {
        if (REAL(ssize_t (*)(int, const void *, size_t), write)(file, data, size / 2) < 0) return -1;
        errno = ENOSPC;
        return -1;
    }
    return REAL(ssize_t (*)(int, const void *, size_t), write)(file, data, size);
}
ssize_t pwrite(int file, const void *data, size_t size, off_t at) {
    if (failing("full", file)) {
        if (REAL(ssize_t (*)(int, const void *, size_t, off_t), pwrite)(file, data, size / 2, at) < 0) return -1;
        errno = ENOSPC;
        return -1;
    }
    return REAL(ssize_t (*)(int, const void *, size_t, off_t), pwrite)(file, data, size, at);
}
ssize_t pwrite64(int file, const void *data, size_t size, off64_t at) {
    if (failing("full", file)) {
        if (REAL(ssize_t (*)(int, const void *, size_t, off64_t), pwrite64)(file, data, size / 2, at) < 0) return -1;
        errno = ENOSPC;
        return -1;
    }
    return REAL(ssize_t (*)(int, const void *, size_t, off64_t), pwrite64)(file, data, size, at);
}
