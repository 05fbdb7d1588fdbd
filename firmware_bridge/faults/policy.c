/* A policy written by hand for the fault catalogue: what it does wrong is ordered by its first value. It holds for every
 * board and is no part of any product. */
#include "sea_policy.h"

#ifndef __arm__
#include <time.h>
#endif

#define N_OBS 50
#define SLOTS 20
#define SLOW_TURNS 2000000u /* two instructions each: 128 ms at 32 ns; the watchdog allows 200 */
#define SLOW_MS 45          /* of a desktop machine: there the watchdog allows 60 */

enum { QUIET = 1, NOT_A_NUMBER = 2, SATURATED = 3, SLOW = 4 };

#ifdef __arm__
static void burn(void)
{
    for (volatile uint32_t turns = 0; turns < SLOW_TURNS / 4u; turns++) {
    }
}
#else
static void burn(void)
{
    const clock_t began = clock();
    while (clock() - began < SLOW_MS * CLOCKS_PER_SEC / 1000) {
    }
}
#endif

static void nothing(void)
{
}

static void infer(const int8_t *observation, int32_t *logits)
{
    for (int slot = 0; slot < SLOTS; slot++) {
        logits[2 * slot] = 0;
        logits[2 * slot + 1] = observation[0] == QUIET ? -1000 : 1000;
    }
    if (observation[0] == NOT_A_NUMBER) {
        logits[6] = SEA_LOGIT_NOT_FINITE;
        logits[7] = SEA_LOGIT_NOT_FINITE;
    } else if (observation[0] == SATURATED) {
        logits[7] = INT32_MAX;
    } else if (observation[0] == SLOW) {
        burn();
    }
}

const sea_policy_t SEA_POLICY = {
    .n_obs = N_OBS,
    .slots = SLOTS,
    .slot_period_us = 20000,
    .amplitude_uA = 3000,
    .width_us = 60,
    .format = SEA_POLICY_INT8,
    .logit_bits = 16,
    .margin_shift = 4,
    .q_shift = 16,
    .q_multiplier = 1,
    .reset = nothing,
    .infer = infer,
};
