/* Prints every inode of the tree it runs in, a line each, for a comparison of two trees: linked statically, so that it
 * runs in any image.
 *
 *     path \t type and mode \t uid:gid \t size or rdev \t mtime \t links and group \t attributes \t target or SHA-256
 *
 * Bytes that are not printable, blanks and % are %XX. Left out are the root itself, whose attributes no layer holds, and
 * every mount point with what is below it. The size of a directory and its links are those of its file system: not told.
 * The group of a hard link is the first path of its inode. Output is sorted by path. A failure is an exit status of 1.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { PATH_BYTES = 8192, LIST_BYTES = 65536 };

/* SHA-256, FIPS 180-4. */
struct sha { uint32_t h[8]; uint8_t block[64]; uint64_t bytes; };

static uint32_t k[64];

/* The constants are the fractional parts of roots of the first primes; integers only, so bit by bit. */
static uint32_t root_fraction(unsigned prime, unsigned power) {
    unsigned __int128 wanted = (unsigned __int128)prime << (32 * power), low = 0, high = (unsigned __int128)32 << 32;
    while (high - low > 1) {
        unsigned __int128 middle = (low + high) / 2, raised = power == 2 ? middle * middle : middle * middle * middle;
        if (raised <= wanted) low = middle; else high = middle;
    }
    return (uint32_t)low;
}

static void sha_begin(struct sha *s) {
    static uint32_t h0[8];
    if (!k[0]) {
        unsigned found = 0;
        for (unsigned n = 2; found < 64; n++) {
            unsigned d = 2;
            while (d * d <= n && n % d) d++;
            if (d * d <= n) continue;
            if (found < 8) h0[found] = root_fraction(n, 2);
            k[found++] = root_fraction(n, 3);
        }
    }
    memcpy(s->h, h0, sizeof h0);
    s->bytes = 0;
}

static uint32_t turned(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha_block(struct sha *s) {
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)s->block[4 * i] << 24 | s->block[4 * i + 1] << 16 | s->block[4 * i + 2] << 8 | s->block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + (turned(w[i - 15], 7) ^ turned(w[i - 15], 18) ^ w[i - 15] >> 3) + w[i - 7] +
               (turned(w[i - 2], 17) ^ turned(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, s->h, sizeof v);
    /* Instead of moving all eight along, each round calls them by other names. */
#define V(n) v[(n - i) & 7]
#pragma GCC unroll 64
    for (int i = 0; i < 64; i++) {
        uint32_t a = V(7) + (turned(V(4), 6) ^ turned(V(4), 11) ^ turned(V(4), 25)) + ((V(4) & V(5)) ^ (~V(4) & V(6))) + k[i] + w[i];
        uint32_t b = (turned(V(0), 2) ^ turned(V(0), 13) ^ turned(V(0), 22)) + ((V(0) & V(1)) ^ (V(0) & V(2)) ^ (V(1) & V(2)));
        V(3) += a;
        V(7) = a + b;
    }
    for (int i = 0; i < 8; i++) s->h[i] += v[i];
}

static void sha_add(struct sha *s, const uint8_t *data, size_t size) {
    while (size) {
        size_t used = s->bytes % 64, piece = 64 - used < size ? 64 - used : size;
        memcpy(s->block + used, data, piece);
        s->bytes += piece;
        data += piece;
        size -= piece;
        if (s->bytes % 64 == 0) sha_block(s);
    }
}

static void sha_print(struct sha *s) {
    uint64_t bits = s->bytes * 8;
    uint8_t length[8], pad = 0x80;
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)(bits >> (56 - 8 * i));
    do sha_add(s, &pad, 1), pad = 0; while (s->bytes % 64 != 56);
    sha_add(s, length, 8);
    for (int i = 0; i < 8; i++) printf("%08x", s->h[i]);
}

static char *mounted[1024];
static size_t mounts;
struct group { dev_t device; ino_t inode; char *path; };
static struct group *groups;
static size_t group_count;

static void die(const char *path) {
    fprintf(stderr, "lister: %s: %s\n", path, strerror(errno));
    exit(1);
}

/* proc_pid_mountinfo(5): the fifth field, in which blanks are octal. Names of mount points in tests have none. */
static void read_mounts(void) {
    char *line = NULL;
    size_t room = 0;
    FILE *file = fopen("/proc/self/mountinfo", "r");
    if (!file) die("/proc/self/mountinfo");
    while (getline(&line, &room, file) > 0) {
        char point[PATH_BYTES];
        if (sscanf(line, "%*s %*s %*s %*s %8191s", point) == 1 && mounts < sizeof mounted / sizeof *mounted)
            mounted[mounts++] = strdup(point);
    }
    fclose(file);
    free(line);
}

static int is_mounted(const char *path) {
    for (size_t i = 0; i < mounts; i++)
        if (!strcmp(mounted[i], path)) return 1;
    return 0;
}

static void print_bytes(const char *data, size_t size) {
    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)data[i];
        if (c > ' ' && c < 127 && c != '%') putchar(c);
        else printf("%%%02x", c);
    }
}

static const char *first_path(const struct stat *status, const char *path) {
    for (size_t i = 0; i < group_count; i++)
        if (groups[i].device == status->st_dev && groups[i].inode == status->st_ino) return groups[i].path;
    groups = realloc(groups, (group_count + 1) * sizeof *groups);
    groups[group_count++] = (struct group){status->st_dev, status->st_ino, strdup(path)};
    return path;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void print_attributes(const char *path) {
    static char list[LIST_BYTES], value[LIST_BYTES];
    char *names[256];
    size_t count = 0;
    ssize_t size = llistxattr(path, list, sizeof list);
    if (size < 0 && errno != ENOTSUP) die(path);
    for (char *name = list; name < list + size && count < 256; name += strlen(name) + 1) names[count++] = name;
    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        ssize_t length = lgetxattr(path, names[i], value, sizeof value);
        if (length < 0) die(path);
        print_bytes(names[i], strlen(names[i]));
        putchar('=');
        print_bytes(value, (size_t)length);
        putchar(i + 1 < count ? ',' : '\t');
    }
    if (!count) printf("-\t");
}

static void print_content(const char *path, const struct stat *status) {
    static uint8_t data[1 << 16];
    if (S_ISLNK(status->st_mode)) {
        ssize_t size = readlink(path, (char *)data, sizeof data);
        if (size < 0) die(path);
        print_bytes((char *)data, (size_t)size);
    } else if (S_ISREG(status->st_mode)) {
        struct sha sha;
        ssize_t size;
        int fd = open(path, O_RDONLY | O_NOATIME);
        if (fd < 0) die(path);
        sha_begin(&sha);
        while ((size = read(fd, data, sizeof data)) > 0) sha_add(&sha, data, (size_t)size);
        if (size < 0) die(path);
        close(fd);
        sha_print(&sha);
    } else putchar('-');
    putchar('\n');
}

static void list(const char *directory) {
    char **names = NULL;
    size_t count = 0;
    DIR *open_directory = opendir(directory);
    if (!open_directory) die(directory);
    for (struct dirent *entry; (entry = readdir(open_directory));) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        names = realloc(names, (count + 1) * sizeof *names);
        names[count++] = strdup(entry->d_name);
    }
    closedir(open_directory);
    qsort(names, count, sizeof *names, by_name);
    for (size_t i = 0; i < count; i++) {
        char path[PATH_BYTES];
        struct stat status;
        if (snprintf(path, sizeof path, "%s/%s", strcmp(directory, "/") ? directory : "", names[i]) >= PATH_BYTES) {
            errno = ENAMETOOLONG;
            die(directory);
        }
        free(names[i]);
        if (is_mounted(path)) continue;
        if (lstat(path, &status)) die(path);
        int is_directory = S_ISDIR(status.st_mode), is_device = S_ISBLK(status.st_mode) || S_ISCHR(status.st_mode);
        print_bytes(path, strlen(path));
        printf("\t%06o\t%u:%u\t", status.st_mode, status.st_uid, status.st_gid);
        if (is_device) printf("%u,%u", major(status.st_rdev), minor(status.st_rdev));
        else printf("%lld", is_directory ? 0LL : (long long)status.st_size);
        printf("\t%lld.%09ld\t%lu=", (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec, is_directory ? 1UL : (unsigned long)status.st_nlink);
        if (!is_directory && status.st_nlink > 1) {
            const char *first = first_path(&status, path);
            print_bytes(first, strlen(first));
        }
        putchar('\t');
        print_attributes(path);
        print_content(path, &status);
        if (is_directory) list(path);
    }
    free(names);
}

int main(void) {
    static char buffer[1 << 16];
    setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
    read_mounts();
    list("/");
    return fflush(stdout) ? 1 : 0;
}
