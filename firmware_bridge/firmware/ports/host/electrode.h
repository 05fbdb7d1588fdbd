/* The virtual electrode: below the core, on a channel of its own that no fault of the link touches. */
#ifndef ELECTRODE_H
#define ELECTRODE_H

#include "channel.h"
#include "sea_core.h"

typedef struct {
    channel_t channel;
    int log_fd; /* -1: no log */
    uint32_t sequence;
    uint32_t lost; /* PULSE frames that nobody read in time */
    bool patient;  /* the reader steps the clock: wait for it */
    bool grounded;
    uint8_t fault;
    int32_t fault_residual_pC;
} electrode_t;

/* Opens the channel and, with a path, the log. */
bool electrode_open(electrode_t *electrode, const char *log_path);

/* The port's functions: ctx is the electrode. */
bool electrode_stimulate(void *ctx, const sea_pulse_t *pulse, int32_t *residual_pC);
void electrode_ground(void *ctx, bool grounded);

void electrode_send(electrode_t *electrode, uint8_t type, uint64_t time_us, const uint8_t *payload, size_t size);

/* One line of JSON; ends the process when it cannot be written: a trace with holes would be worthless. */
void electrode_log(electrode_t *electrode, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
