#define _XOPEN_SOURCE 700

#include "key.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define FORMAT "sea-dbs-key-1 "
#define DIGITS (2u * SEA_KEY_SIZE)

static bool fails(const char *path, const char *why)
{
    fprintf(stderr, "sea-board-host: %s: %s\n", path, why);
    return false;
}

static bool is_private(int file)
{
    struct stat found;
    return fstat(file, &found) == 0 && S_ISREG(found.st_mode) && found.st_uid == geteuid() && (found.st_mode & 0177) == 0;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse(const char *text, size_t size, uint8_t key[SEA_KEY_SIZE])
{
    const size_t start = sizeof FORMAT - 1u;
    if ((size != start + DIGITS && (size != start + DIGITS + 1u || text[size - 1u] != '\n')) ||
        memcmp(text, FORMAT, start) != 0) {
        return false;
    }
    for (size_t i = 0; i < SEA_KEY_SIZE; i++) {
        const int high = digit(text[start + 2u * i]);
        const int low = digit(text[start + 2u * i + 1u]);
        if (high < 0 || low < 0) {
            return false;
        }
        key[i] = (uint8_t)(16 * high + low);
    }
    return true;
}

/* Under a lock: two boards with one key must not count the same. */
static bool count_boot(int file, uint32_t *boots)
{
    char text[16] = {0};
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (!is_private(file) || fcntl(file, F_SETLKW, &lock) != 0 || pread(file, text, sizeof text - 1u, 0) < 0) {
        return false;
    }
    const unsigned long long last = strtoull(text, NULL, 10);
    const unsigned long long now = (unsigned long long)time(NULL);
    const unsigned long long next = last + 1u > now ? last + 1u : now;
    const int size = snprintf(text, sizeof text, "%010llu\n", next);
    *boots = (uint32_t)next;
    return next <= UINT32_MAX && pwrite(file, text, (size_t)size, 0) == size && fsync(file) == 0;
}

bool key_read(const char *path, uint8_t key[SEA_KEY_SIZE], uint32_t *boots)
{
    char text[128];
    char name[1024];
    const int file = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0) {
        return fails(path, "the key file cannot be opened, or is a link");
    }
    const bool allowed = is_private(file);
    const ssize_t size = allowed ? read(file, text, sizeof text) : -1;
    (void)close(file);
    if (!allowed) {
        return fails(path, "the key file must be a plain file of your own with the rights 0600");
    }
    if (size < 0 || !parse(text, (size_t)size, key)) {
        return fails(path, "is no key file: make one with 'sea-dbs key new --out FILE'");
    }
    const int length = snprintf(name, sizeof name, "%s.boots", path);
    const int counter = length > 0 && (size_t)length < sizeof name
                            ? open(name, O_RDWR | O_CREAT | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600)
                            : -1;
    const bool counted = counter >= 0 && count_boot(counter, boots);
    if (counter >= 0) {
        (void)close(counter);
    }
    return counted || fails(path, "its count of power-ons (FILE.boots, 0600) cannot be kept");
}
