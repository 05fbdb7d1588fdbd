/* A judge of every pulse and every answer. Its numbers are written out: it shares no table with the core.
 * Included once in a program, after JUDGE_FAIL(what) is defined: it does not return. */
#ifndef JUDGE_H
#define JUDGE_H

#include <string.h>

#include "sea_core.h"

#define JUDGE_SPANS 50u /* of 200 ms: 10 s */

/* What the board was built for. */
typedef struct {
    uint32_t limit_uA;
    uint32_t fixed_uA; /* of FALLBACK; 0: it ramps to 0 */
    uint64_t dose_nJ; /* in 10 s */
    uint32_t v_max_mV;
    uint32_t toggles;
} rules_t;

typedef struct {
    rules_t rules;
    uint64_t lease_until_us; /* latest end of a lease that the board has acknowledged */
    uint64_t leases_us[2];   /* of the two newest orders taken: no others can be held */
    uint32_t ordered_uA[2];
    uint64_t bound_pA;       /* the ramp's set point is not above it */
    uint64_t bound_us;
    uint64_t last_pulse_us;
    struct {
        uint64_t number;
        uint64_t energy_fJ;
        uint32_t toggles;
    } spans[JUDGE_SPANS];
    uint32_t ohm;            /* of the newest pulse measured; 0: none */
    uint64_t pulses;
    uint8_t state;
    bool grounded;
    bool pulsed;             /* since power-on */
    bool person;             /* presses the button now */
    bool failed;             /* the newest pulse went wrong: SAFE_OFF must follow */
} judge_t;

static void judge_power_on(judge_t *j, const rules_t *rules)
{
    *j = (judge_t){.rules = *rules, .pulses = j->pulses, .state = SEA_STATE_BOOT, .grounded = true};
}

/* 0.5 mA/s up, 1 mA/s down, towards the greatest amplitude that can be the target. */
static void judge_ramp(judge_t *j, uint64_t now_us)
{
    const uint64_t elapsed = now_us - j->bound_us;
    uint64_t target = 0;
    if (j->state == SEA_STATE_CLOSED_LOOP) {
        target = j->ordered_uA[0] > j->ordered_uA[1] ? j->ordered_uA[0] : j->ordered_uA[1];
    } else if (j->state == SEA_STATE_FALLBACK) {
        target = j->rules.fixed_uA;
    }
    target *= 1000000u;
    j->bound_us = now_us;
    if (j->bound_pA < target) {
        j->bound_pA = target - j->bound_pA < elapsed * 500u ? target : j->bound_pA + elapsed * 500u;
    } else {
        j->bound_pA = j->bound_pA - target < elapsed * 1000u ? target : j->bound_pA - elapsed * 1000u;
    }
}

static bool judge_gives(const judge_t *j, uint8_t state)
{
    return state == SEA_STATE_CLOSED_LOOP || (state == SEA_STATE_FALLBACK && j->rules.fixed_uA > 0);
}

static bool judge_may_follow(const judge_t *j, uint8_t after)
{
    switch (j->state) {
    case SEA_STATE_BOOT:
        return after == SEA_STATE_IDLE || after == SEA_STATE_SAFE_OFF;
    case SEA_STATE_IDLE:
        return after == SEA_STATE_ARMED || after == SEA_STATE_SAFE_OFF;
    case SEA_STATE_ARMED:
        return after == SEA_STATE_CLOSED_LOOP || after == SEA_STATE_IDLE || after == SEA_STATE_SAFE_OFF;
    case SEA_STATE_CLOSED_LOOP:
        return after == SEA_STATE_FALLBACK || after == SEA_STATE_IDLE || after == SEA_STATE_SAFE_OFF;
    case SEA_STATE_FALLBACK:
        return after == SEA_STATE_ARMED || after == SEA_STATE_IDLE || after == SEA_STATE_SAFE_OFF;
    default: /* memory that changed leads into it from anywhere */
        return after == SEA_STATE_SAFE_OFF || (after == SEA_STATE_IDLE && j->person);
    }
}

/* The port is told to ground or not: at power-on, and with every change of state. */
static void judge_ground(judge_t *j, uint8_t state, bool grounded, uint64_t now_us)
{
    j->grounded = grounded;
    if (state == SEA_STATE_BOOT) {
        return;
    }
    if (j->state == SEA_STATE_SAFE_OFF && state != SEA_STATE_SAFE_OFF && !j->person) {
        JUDGE_FAIL("SAFE_OFF was left without a person");
    }
    if (!judge_may_follow(j, state)) {
        JUDGE_FAIL("a change of state that is not in the table");
    }
    judge_ramp(j, now_us);
    j->state = state;
    if (grounded == judge_gives(j, state)) {
        JUDGE_FAIL("the electrode is grounded where it gives, or not where it does not");
    }
    if (state == SEA_STATE_IDLE || state == SEA_STATE_SAFE_OFF) {
        j->bound_pA = 0;
    }
    if (state != SEA_STATE_CLOSED_LOOP) {
        memset(j->leases_us, 0, sizeof j->leases_us);
        memset(j->ordered_uA, 0, sizeof j->ordered_uA);
        j->lease_until_us = 0;
    }
}

/* An order, a decision or a renewal was acknowledged: every decision held is kept alive, each for its own lease. */
static void judge_lease(judge_t *j, uint64_t told_until_us, uint64_t now_us)
{
    if (told_until_us > now_us + 1000000u) {
        JUDGE_FAIL("a lease longer than a second");
    }
    for (size_t i = 0; i < 2; i++) {
        const uint64_t until = now_us + j->leases_us[i];
        j->lease_until_us = until > j->lease_until_us ? until : j->lease_until_us;
    }
}

static void judge_order(judge_t *j, uint64_t lease_us, uint32_t amplitude_uA, uint64_t told_until_us, uint64_t now_us)
{
    judge_ramp(j, now_us);
    j->leases_us[1] = j->leases_us[0];
    j->leases_us[0] = lease_us;
    j->ordered_uA[1] = j->ordered_uA[0];
    j->ordered_uA[0] = amplitude_uA;
    judge_lease(j, told_until_us, now_us);
}

/* Sums over 10 s at most: what they find is there; a window of the core's own is a little longer. */
static void judge_sums(judge_t *j, uint64_t now_us, uint64_t energy_fJ, uint32_t toggles)
{
    const uint64_t number = now_us / 200000u;
    const size_t here = (size_t)(number % JUDGE_SPANS);
    uint64_t energy = 0;
    uint32_t times = 0;
    if (j->spans[here].number != number) {
        memset(&j->spans[here], 0, sizeof j->spans[here]);
        j->spans[here].number = number;
    }
    j->spans[here].energy_fJ += energy_fJ;
    j->spans[here].toggles += toggles;
    for (size_t i = 0; i < JUDGE_SPANS; i++) {
        const bool is_in = j->spans[i].number + JUDGE_SPANS > number;
        energy += is_in ? j->spans[i].energy_fJ : 0;
        times += is_in ? j->spans[i].toggles : 0;
    }
    if (energy > j->rules.dose_nJ * 1000000u) {
        JUDGE_FAIL("the mean power is above its cap");
    }
    if (times > j->rules.toggles) {
        JUDGE_FAIL("stimulation was switched on and off too often");
    }
}

static void judge_shape(const judge_t *j, const sea_pulse_t *pulse)
{
    const int64_t first = (int64_t)pulse->amplitude_uA[0] * pulse->width_us[0];
    const int64_t second = (int64_t)pulse->amplitude_uA[1] * pulse->width_us[1];
    if (first + second != 0) {
        JUDGE_FAIL("charge is not balanced");
    }
    if (pulse->amplitude_uA[0] >= 0 || pulse->amplitude_uA[0] < -(int32_t)j->rules.limit_uA) {
        JUDGE_FAIL("amplitude outside its range");
    }
    if (pulse->width_us[0] < 60 || pulse->width_us[0] > 120) {
        JUDGE_FAIL("width outside 60 to 120 us");
    }
    if (-first > 30 * 8000) {
        JUDGE_FAIL("charge density above 30 uC/cm2 on 0.008 cm2");
    }
    if (first * first > (int64_t)56234133 * 8000) { /* log10 D = 1.75 - log10 Q, in uC and cm2 */
        JUDGE_FAIL("charge above Shannon's limit on 0.008 cm2");
    }
}

/* A pulse is given at a time. */
static void judge_pulse(judge_t *j, const sea_pulse_t *pulse)
{
    const uint64_t now_us = pulse->start_us;
    const uint64_t amplitude = (uint64_t)-(int64_t)pulse->amplitude_uA[0];
    const uint64_t pause = now_us - j->last_pulse_us;
    const uint32_t ohm = j->ohm > 1000 ? j->ohm : 1000;
    judge_shape(j, pulse);
    if (j->failed) {
        JUDGE_FAIL("a pulse after one that went wrong");
    }
    if (j->grounded || !judge_gives(j, j->state)) {
        JUDGE_FAIL("a pulse in a state that gives none");
    }
    if (j->state == SEA_STATE_CLOSED_LOOP && now_us >= j->lease_until_us) {
        JUDGE_FAIL("a pulse past the lease");
    }
    if (j->pulsed && pause < 5405) {
        JUDGE_FAIL("faster than 185 Hz");
    }
    if (amplitude * j->ohm + 500000u > j->rules.v_max_mV * UINT64_C(1000)) {
        JUDGE_FAIL("a pulse that the stimulator cannot give");
    }
    judge_ramp(j, now_us);
#ifndef SEA_BROKEN_RAMP
    if (amplitude * 1000000u > j->bound_pA) {
        JUDGE_FAIL("a pulse above the ramp");
    }
#endif
    /* uA^2 x ohm x us = 10^-18 J; only a pause that is one for every slot period is counted */
    judge_sums(j, now_us, amplitude * amplitude * ohm * pulse->width_us[0] / 1000u,
               j->state == SEA_STATE_CLOSED_LOOP && j->pulsed && pause > 1000000u ? 2 : 0);
    j->pulses++;
    j->pulsed = true;
    j->last_pulse_us = now_us;
}

/* After every step. */
static void judge_after(judge_t *j, uint8_t state)
{
    if (state != j->state) {
        JUDGE_FAIL("a change of state of which the electrode's port was not told");
    }
    if (j->failed && state != SEA_STATE_SAFE_OFF) {
        JUDGE_FAIL("a fault of the output did not lead to SAFE_OFF");
    }
    j->failed = false;
}

#endif
