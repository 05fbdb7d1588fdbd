/* The tiny policy, deciding so slowly that pulses are due meanwhile. */
#include "sea_policy.h"

#define TINY_N_OBS 60 /* one frame */
#define SEA_POLICY tiny_policy /* that header defines a policy of this name */
#include "tiny_policy.h"
#undef SEA_POLICY

#ifndef SLOW_TURNS
#define SLOW_TURNS 2000000u /* two instructions each: 128 ms at 32 ns; the watchdog allows 200 */
#endif

static void slow_infer(const int8_t *observation, int32_t *logits)
{
    uint32_t turns = SLOW_TURNS;
    __asm volatile("1: subs %0, %0, #1\n\tbne 1b" : "+r"(turns)::"cc");
    tiny_infer(observation, logits);
}

const sea_policy_t SEA_POLICY = {
    .n_obs = TINY_N_OBS,
    .slots = TINY_SLOTS,
    .slot_period_us = 40000,
    .amplitude_uA = 3000,
    .width_us = 60,
    .format = SEA_POLICY_INT8,
    .logit_bits = 16,
    .margin_shift = 4,
    .q_shift = 16,
    .q_multiplier = 1,
    .reset = tiny_reset,
    .infer = slow_infer,
};
