/*
 * usage: io write|read|random-write|random-read FILE MIB [SECONDS]
 *
 * One kind of work on one file, as fio's psync engine does it at a queue depth of one, and prints one number.
 * write: MIB in blocks of 1 MiB, then fsync(2); read: the same back. Both print MiB/s. random-write, random-read:
 * blocks of 4 KiB at places that a generator with a fixed seed gives, for SECONDS, each write on the disk before the next
 * (O_DSYNC), as a database's log is; both print operations per second. Readers first drop the file from this kernel's page cache
 * (posix_fadvise(2), POSIX_FADV_DONTNEED): what is measured is the way to the disk, in a machine through its host.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MIB = 1 << 20, BLOCK = 4096 };

static double now(void)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return (double)at.tv_sec + (double)at.tv_nsec / 1e9;
}

/* A linear congruential generator (Knuth's MMIX): the same places in every run. */
static uint64_t next(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

static double sequential(int fd, int writing, long mib, char *buffer)
{
    double begin = now();
    for (long at = 0; at < mib; at++) {
        ssize_t done = writing ? pwrite(fd, buffer, MIB, at * MIB) : pread(fd, buffer, MIB, at * MIB);
        if (done != MIB)
            err(1, "block %ld", at);
    }
    if (writing && fsync(fd) != 0)
        err(1, "fsync");
    return (double)mib / (now() - begin);
}

static double at_random(int fd, int writing, long mib, double seconds, char *buffer)
{
    uint64_t state = 1, blocks = (uint64_t)mib * (MIB / BLOCK);
    long count = 0;
    double begin = now();
    while (now() - begin < seconds) {
        off_t at = (off_t)(next(&state) % blocks) * BLOCK;
        ssize_t done = writing ? pwrite(fd, buffer, BLOCK, at) : pread(fd, buffer, BLOCK, at);
        if (done != BLOCK)
            err(1, "at %lld", (long long)at);
        count++;
    }
    return (double)count / (now() - begin);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        errx(2, "usage: io write|read|random-write|random-read FILE MIB [SECONDS]");
    int random = strncmp(argv[1], "random-", 7) == 0;
    int writing = strcmp(argv[1] + (random ? 7 : 0), "write") == 0;
    long mib = atol(argv[3]);
    double seconds = argc > 4 ? atof(argv[4]) : 1;
    int fd = open(argv[2], writing ? O_RDWR | O_CREAT | (random ? O_DSYNC : 0) : O_RDONLY, 0644);
    if (fd < 0)
        err(1, "%s", argv[2]);
    if (!writing && (errno = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED)) != 0)
        err(1, "posix_fadvise");
    char *buffer = malloc(MIB);
    if (buffer == NULL)
        err(1, "malloc");
    uint64_t state = 7;
    for (int i = 0; i < MIB; i += 8)
        *(uint64_t *)(buffer + i) = next(&state);
    printf("%.1f\n", random ? at_random(fd, writing, mib, seconds, buffer) : sequential(fd, writing, mib, buffer));
    return 0;
}
