/* The host board's watchdog: a thread with a clock of its own, as the oscillator of a real one, that resets the board when its
 * main loop no longer feeds it. It counts real time, never the board's virtual clock: a clock that stands is no hang, for the
 * loop goes on and feeds. A loop that gets no time from this machine does not hang either: it must also have run.
 *
 * A reset is a program started anew in the same process: memory as it is in the file, clock at 0, the output grounded. Its two
 * ptys stay, as the pins of a chip do. */
#ifndef WATCHDOG_H
#define WATCHDOG_H

#include <stdbool.h>
#include <stdint.h>

#define WATCHDOG_US 250000u     /* since it was last fed ... */
#define WATCHDOG_RAN_US 60000u  /* ... of which the loop has run so long */
#define WATCHDOG_LOOK_US 20000u

/* What is left of the board before a reset. */
typedef struct {
    int link_fd; /* 0: this is no start after a reset */
    int electrode_fd;
    uint32_t resets; /* since the process began */
    bool stepped;    /* whoever holds the clock holds it still */
} reset_t;

/* Reads and writes a reset_t as one word, an argument of the program that is started anew. */
bool reset_read(reset_t *reset, const char *text);

/* Starts the watchdog over the calling thread. The arguments are those of this program; `left` is read when it bites. */
bool watchdog_start(int argc, char **argv, const reset_t *left);

void watchdog_feed(void);

#endif
