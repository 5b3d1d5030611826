/* Lets fsync and fdatasync wait while the file that HANG_SYNC names exists, as they do on a disk that
   does not answer. Loaded before the C library (LD_PRELOAD). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

static int sync_after_hang(const char *name, int file) {
    const char *hang = getenv("HANG_SYNC");
    while (hang && access(hang, F_OK) == 0) usleep(1000);
    int (*sync)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    return sync(file);
}

int fsync(int file) { return sync_after_hang("fsync", file); }

int fdatasync(int file) { return sync_after_hang("fdatasync", file); }
