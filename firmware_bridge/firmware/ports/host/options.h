/* Command line of the host board, and the registry in which running boards say where they are. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "sea_core.h"
#include "watchdog.h"

typedef struct {
    sea_config_t config;
    uint8_t key[SEA_KEY_SIZE]; /* config points here where there is one: keep the options */
    bool realtime;
    bool with_parent; /* standard input is a pipe whose other end the parent holds */
    reset_t reset; /* the board goes on after one */
    const char *electrode_log;
    const char *registry; /* a folder */
} options_t;

/* False: an option is wrong, and standard error says which. */
bool options_read(options_t *options, int argc, char **argv);

bool registry_add(const char *folder, const char *link, const char *electrode);
void registry_remove(const char *folder);

#endif
