#define _XOPEN_SOURCE 700

#include "options.h"

#include "image.h"
#include "key.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static bool read_hash(uint8_t hash[32], const char *text)
{
    if (text == NULL || strlen(text) != 64 || strspn(text, "0123456789abcdef") != 64) {
        return false;
    }
    for (size_t i = 0; i < 32; i++) {
        const char pair[3] = {text[2 * i], text[2 * i + 1], 0};
        hash[i] = (uint8_t)strtoul(pair, NULL, 16);
    }
    return true;
}

static bool read_number(uint32_t *number, const char *text)
{
    char *end = NULL;
    if (text == NULL || *text < '0' || *text > '9') {
        return false;
    }
    const unsigned long long value = strtoull(text, &end, 10);
    *number = (uint32_t)value;
    return *end == 0 && value <= UINT32_MAX;
}

bool options_read(options_t *options, int argc, char **argv)
{
    *options = (options_t){0};
    image_config(&options->config);
    bool good = true;
    int i = 1;
    for (; good && i < argc; i++) {
        const char *name = argv[i];
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(name, "--realtime") == 0) {
            options->realtime = true;
            continue;
        }
        if (strcmp(name, "--with-parent") == 0) {
            options->with_parent = true;
            continue;
        }
        i++; /* the others take a value */
        if (strcmp(name, "--model") == 0) {
            good = read_hash(options->config.model_hash, value);
        } else if (strcmp(name, "--amplitude-limit") == 0) {
            good = read_number(&options->config.limits.amplitude_uA, value);
        } else if (strcmp(name, "--electrode-area") == 0) {
            good = read_number(&options->config.limits.electrode_area, value);
        } else if (strcmp(name, "--v-max") == 0) {
            good = read_number(&options->config.limits.v_max_mV, value);
        } else if (strcmp(name, "--dose-limit") == 0) {
            good = read_number(&options->config.limits.dose_uW, value);
        } else if (strcmp(name, "--toggle-limit") == 0) {
            good = read_number(&options->config.limits.toggles, value);
        } else if (strcmp(name, "--electrode-log") == 0) {
            options->electrode_log = value;
            good = value != NULL;
        } else if (strcmp(name, "--key") == 0) {
            if (value != NULL && !key_read(value, options->key, &options->config.boot_count)) {
                return false;
            }
            options->config.device_key = options->key;
            good = value != NULL;
        } else if (strcmp(name, "--reset") == 0) { /* of the watchdog's own; the last one, so that the count is kept */
            good = reset_read(&options->reset, value);
            options->config.boot_cause = SEA_CAUSE_WATCHDOG;
            options->config.boot_count += options->config.device_key == NULL ? options->reset.resets : 0;
        } else if (strcmp(name, "--registry") == 0) {
            options->registry = value;
            good = value != NULL;
        } else {
            good = false;
        }
    }
    if (!good) {
        fprintf(stderr, "sea-board-host: wrong option or value after: %s\n", argv[i > 2 ? i - 2 : 0]);
    }
    return good;
}

static bool entry_path(char *path, size_t size, const char *folder, const char *suffix)
{
    const int length = snprintf(path, size, "%s/board-%ld.json%s", folder, (long)getpid(), suffix);
    return length > 0 && (size_t)length < size;
}

bool registry_add(const char *folder, const char *link, const char *electrode)
{
    char path[1024];
    char half[1024];
    if (folder == NULL) {
        return true;
    }
    if (!entry_path(path, sizeof path, folder, "") || !entry_path(half, sizeof half, folder, ".tmp")) {
        return false;
    }
    FILE *file = fopen(half, "w");
    if (file == NULL) {
        return false;
    }
    const bool written = fprintf(file, "{\"port\": \"%s\", \"electrode\": \"%s\"}\n", link, electrode) > 0;
    return (fclose(file) == 0) && written && rename(half, path) == 0;
}

void registry_remove(const char *folder)
{
    char path[1024];
    if (folder != NULL && entry_path(path, sizeof path, folder, "")) {
        (void)unlink(path);
    }
}
