/*
 * RUNTIME/bin/NAME of a release: becomes RUNTIME/libexec/NAME, with RUNTIME's own loader and libraries.
 *
 * A release's programs are Debian's, and run on machines with another C library, or none. So nothing of the machine may
 * be in use: not its loader (the path that stands in every program), not the libraries that the loader would find in
 * its cache. This is static, and starts the loader as a program, which ld.so(8) allows; RUNTIME is wherever this file
 * lies. The loader lies beside it, because QEMU finds its firmware and modules from where /proc/self/exe is: then,
 * that is the loader.
 *
 * A program that is told of a file of its own by the environment gets that, and no other program does.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LOADER "ld-linux-x86-64.so.2"

/* NAME begins with `program`; the files that it has to know of. */
static const struct {
    const char *program, *variable, *file;
} known[] = {
    {"iptables", "XTABLES_LIBDIR", "lib/xtables"},
    {"ip6tables", "XTABLES_LIBDIR", "lib/xtables"},
    {"nft", "XTABLES_LIBDIR", "lib/xtables"},
    {"mkfs.ext4", "MKE2FS_CONFIG", "etc/mke2fs.conf"},
};

static char here[PATH_MAX];

static int fail(const char *what, const char *path, const char *hint)
{
    fprintf(stderr, "%s: %s%s: %s%s\n", here[0] ? here : "qemubox", what, path, strerror(errno), hint);
    return 127;
}

/* RUNTIME and what is below it; the process keeps it until it becomes another. */
static char *below(const char *runtime, const char *directory, const char *name)
{
    char *path;

    if (asprintf(&path, "%s/%s%s", runtime, directory, name) < 0)
        _exit(fail("no memory", "", ""));
    return path;
}

/* The directory that a path lies in, cut off from it in place; the rest is answered. */
static char *cut(char *path)
{
    char *slash = strrchr(path, '/');

    if (!slash)
        return NULL;
    *slash = '\0';
    return slash + 1;
}

int main(int argc, char **argv)
{
    char runtime[PATH_MAX], *name, *loader, *program, **words;
    ssize_t length = readlink("/proc/self/exe", here, sizeof(here) - 1);

    /* A path that was cut short, or that lies at no depth, is none of a release's. */
    if (length < 0 || length == sizeof(here) - 1) {
        if (length >= 0)
            errno = ENAMETOOLONG;
        here[0] = '\0';
        return fail("cannot tell where it is from ", "/proc/self/exe", " (is /proc mounted?)");
    }
    strcpy(runtime, here);
    name = cut(runtime);
    if (!name || !cut(runtime)) {
        errno = EINVAL;
        return fail("does not lie in the bin of a runtime", "", "");
    }

    loader = below(runtime, "bin/", LOADER);
    program = below(runtime, "libexec/", name);
    if (access(program, X_OK) < 0)
        return fail("cannot execute ", program, " (is the installation whole? run install.sh again)");

    /* These would bring the machine's libraries into a process with another C library. */
    unsetenv("LD_PRELOAD");
    unsetenv("LD_AUDIT");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (!strncmp(name, known[i].program, strlen(known[i].program)) &&
            setenv(known[i].variable, below(runtime, "", known[i].file), 1) < 0)
            return fail("no memory", "", "");

    words = calloc(argc + 8, sizeof(*words));
    if (!words)
        return fail("no memory", "", "");
    char *first[] = {LOADER, "--inhibit-cache", "--argv0", here, "--library-path", below(runtime, "lib", ""), program};
    memcpy(words, first, sizeof(first));
    for (int i = 1; i < argc; i++)
        words[sizeof(first) / sizeof(first[0]) + i - 1] = argv[i];
    execv(loader, words);
    return fail("cannot execute ", loader, " (is the installation whole? run install.sh again)");
}
