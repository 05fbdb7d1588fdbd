/* The virtual electrode and the channel it speaks on: below the core, touched by no fault of the link. The same on every
 * board that has no tissue: the host's process and the emulated ones. What differs is behind bench_port_t.
 *
 * Board -> bench: PULSE for each pulse given; STATUS for each change of state or lease; AT in answer to the others.
 * Bench -> board: CLOCK, ADVANCE, BUTTON, ELECTRODE. */
#ifndef BENCH_H
#define BENCH_H

#include "sea_core.h"

/* The electrode as it usually is, and a short circuit. */
#define BENCH_IMPEDANCE_OHM 1000u
#define BENCH_SHORT_OHM 10u
#define BENCH_V_MAX_MV 10000u

typedef struct {
    void *ctx;
    /* Sends a whole frame; false: nobody took it. */
    bool (*send)(void *ctx, const uint8_t *bytes, size_t size);
    uint64_t (*now_us)(void *ctx);
    /* Stops the clock or lets it run; true: it stands now. Null: it always runs. */
    bool (*set_stepped)(void *ctx, bool stepped);
    /* Lives through everything before a time; the clock stands there. Only with a clock that stands. */
    void (*step)(void *ctx, uint64_t to_us);
    /* Test builds: hangs, the main loop or (deaf) with interrupts off. Null in every other build. */
    void (*hang)(void *ctx, bool deaf);
    /* Test builds: flips a bit of a constant. Null in every other build. */
    void (*flip)(void *ctx, const void *at, unsigned bit);
} bench_port_t;

typedef struct {
    const bench_port_t *port;
    sea_core_t *core;
    sea_rx_t rx;
    uint32_t sequence;
    uint32_t lost; /* PULSE frames that nobody took in time */
    bool stepped;
    bool grounded;
    uint8_t fault;
    int32_t fault_residual_pC;
    uint32_t impedance_ohm;
    uint32_t v_max_mV; /* the output saturates here */
    bool waiting; /* an ADVANCE in real time is not yet answered */
    uint32_t waiting_token;
    uint64_t waiting_us;
    uint8_t told_state;
    uint64_t told_lease_us;
} bench_t;

void bench_init(bench_t *bench, const bench_port_t *port, sea_core_t *core);

/* Bytes that came on the channel. */
void bench_feed(bench_t *bench, const uint8_t *bytes, size_t size);

/* Answers an ADVANCE whose time has come. Call it after the tick. */
void bench_poll(bench_t *bench);

/* Nobody holds the channel any more: nothing is waited for. */
void bench_released(bench_t *bench);

/* For sea_port_t: ctx is the bench. */
bool bench_stimulate(void *ctx, const sea_pulse_t *pulse, sea_given_t *given);
void bench_ground(void *ctx, bool grounded);

/* Sends STATUS (unasked: of_sequence 0, only what the bench cares for) if state or lease are not those last told. */
void bench_trace(bench_t *bench);

#endif
