/* The electrode channel's end in this process, and the log of what happened below the core. */
#ifndef ELECTRODE_H
#define ELECTRODE_H

#include "channel.h"
#include "sea_core.h"

typedef struct {
    channel_t channel;
    int log_fd; /* -1: no log */
    bool patient;  /* the reader steps the clock: wait for it */
    bool missed;   /* the onlooker did not read in time: it is not waited for again */
} electrode_t;

/* Opens the channel (or takes over that of an fd, not 0, which was open before a reset) and, with a path, the log. */
bool electrode_open(electrode_t *electrode, const char *log_path, int fd);

/* Sends a frame; false: somebody holds the channel but did not read it in time. */
bool electrode_send(electrode_t *electrode, const uint8_t *bytes, size_t size);

/* One line of JSON; ends the process when it cannot be written: a trace with holes would be worthless. */
void electrode_log(electrode_t *electrode, const char *format, ...) __attribute__((format(printf, 2, 3)));
void electrode_log_pulse(electrode_t *electrode, const sea_pulse_t *pulse, const sea_given_t *given);

#endif
