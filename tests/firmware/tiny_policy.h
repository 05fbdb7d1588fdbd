/* A policy written by hand for the tests: it reads every value, remembers, and can fail. Its twin is in
 * tests/observe_tools.py. */
#ifndef TINY_POLICY_H
#define TINY_POLICY_H

#include "sea_policy.h"

#ifndef TINY_N_OBS
#define TINY_N_OBS 400 /* three frames, the last one short */
#endif
#ifndef TINY_SLOTS
#define TINY_SLOTS 60 /* more than the margins of one DECISION; logits in three frames */
#endif

static int32_t tiny_state;

static void tiny_reset(void)
{
    tiny_state = 0;
}

static void tiny_infer(const int8_t *observation, int32_t *logits)
{
    for (int slot = 0; slot < TINY_SLOTS; slot++) {
        int32_t sum = 0;
        for (int i = slot; i < TINY_N_OBS; i += TINY_SLOTS) {
            sum += observation[i] * (1 + i % 7);
        }
        logits[2 * slot] = 16 * tiny_state;
        logits[2 * slot + 1] = 256 * sum;
    }
    tiny_state += observation[0];
    if (observation[1] == INT8_MIN) { /* as a float format says that slot 3 is not finite */
        logits[6] = SEA_LOGIT_NOT_FINITE;
        logits[7] = SEA_LOGIT_NOT_FINITE;
    }
}

const sea_policy_t SEA_POLICY = {
    .n_obs = TINY_N_OBS,
    .slots = TINY_SLOTS,
    .slot_period_us = 20000,
    .amplitude_uA = 3000,
    .width_us = 60,
    .format = SEA_POLICY_INT8,
    .logit_bits = 16,
    .margin_shift = 4,
    .q_shift = 16,
    .q_multiplier = 1,
    .reset = tiny_reset,
    .infer = tiny_infer,
};

#endif
