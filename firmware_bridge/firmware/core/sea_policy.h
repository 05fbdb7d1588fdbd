/* A policy as the core sees it: int8 observation in, int32 logits out. The generated sea_policy.c defines SEA_POLICY.
 *
 *     int8_t q[n_obs];  int32_t logits[2 * slots];
 *     sea_policy_quantise(&SEA_POLICY, obs_q16, q);   obs_q16 = rint(P_beta/1000 * 65536), done by whoever senses
 *     SEA_POLICY.infer(q, logits);                    [slot][no pulse, pulse]; a tie gives no pulse
 *
 * Every format takes the same int8 observation. The whole arithmetic of rounding stands here, in sea_requantise; its
 * twin in Python is export/integer/fixed.py, and tests hold both against exact fractions.
 */
#ifndef SEA_POLICY_H
#define SEA_POLICY_H

#include <stdint.h>

#define SEA_POLICY_INT8 1u
#define SEA_POLICY_FP32 2u
#define SEA_POLICY_FP16 3u

/* Both logits of a slot take this value when a float format gave NaN or infinity: the core refuses such a decision. */
#define SEA_LOGIT_NOT_FINITE INT32_MIN

/* Arrays of a fixed size for a caller without heap; the generator refuses a larger policy. */
#define SEA_POLICY_MAX_OBS 1024u
#define SEA_POLICY_MAX_SLOTS 256u

typedef struct {
    uint16_t n_obs;          /* values of an observation, at most SEA_POLICY_MAX_OBS */
    uint16_t slots;          /* slots of a decision, at most SEA_POLICY_MAX_SLOTS; logits holds 2 * slots */
    uint32_t slot_period_us; /* what a decision means: part of the policy */
    uint32_t amplitude_uA;
    uint16_t width_us;
    uint8_t format;          /* SEA_POLICY_INT8, _FP32, _FP16 */
    uint8_t logit_bits;      /* a logit of 1.0 is 2^logit_bits */
    uint8_t margin_shift;    /* sea_policy_margin; with it a margin of 1.0 is 2^(logit_bits - margin_shift) */
    int8_t q_zero;           /* int8 value of an observation that equals q_centre */
    uint8_t q_shift;         /* q = saturate(q_zero + sea_requantise(obs - q_centre, q_multiplier, q_shift)) */
    int32_t q_multiplier;
    int32_t q_centre;        /* P_beta/1000, Q16 */
    void (*reset)(void);     /* recurrent state to zero; does nothing without one */
    /* Static buffers: not reentrant. A recurrent state advances by one decision. */
    void (*infer)(const int8_t *observation, int32_t *logits);
} sea_policy_t;

extern const sea_policy_t SEA_POLICY;

/* Observation of n_obs values (P_beta/1000, Q16) to the policy's int8 scale. */
void sea_policy_quantise(const sea_policy_t *policy, const int32_t *obs_q16, int8_t *out);

#if defined(__GNUC__) || defined(__clang__)
_Static_assert((-3 >> 1) == -2, "shifts of negative numbers are arithmetic"); /* C11 leaves it to the compiler */
#else
#error "not tried with this compiler: shifts of negative numbers must be arithmetic"
#endif

static inline int32_t sea_saturate32(int64_t value)
{
    if (value > INT32_MAX) {
        return INT32_MAX;
    }
    return value < INT32_MIN ? INT32_MIN : (int32_t)value;
}

static inline int8_t sea_saturate8(int32_t value)
{
    if (value > INT8_MAX) {
        return INT8_MAX;
    }
    return value < INT8_MIN ? (int8_t)INT8_MIN : (int8_t)value;
}

/* value * multiplier / 2^shift, rounded to the nearest, halves to even, saturated to 32 bits.
 * multiplier 0 .. 2^31 - 1, shift 1 .. 62: the product stays below 2^62, nothing overflows. */
static inline int32_t sea_requantise(int32_t value, int32_t multiplier, uint8_t shift)
{
    int64_t product = (int64_t)value * multiplier;
    if (shift > 32) { /* the same in half the instructions of a 32-bit core: only whether the lower word is 0 counts */
        int32_t upper = (int32_t)(product >> 32);
        int32_t odd_or_more = ((upper >> (shift - 32u)) & 1) | ((uint32_t)product != 0);
        int32_t half = (int32_t)1 << (shift - 33u);
        return (upper + (half - 1) + odd_or_more) >> (shift - 32u);
    }
    int64_t half = (int64_t)1 << (shift - 1u);
    return sea_saturate32((product + (half - 1) + ((product >> shift) & 1)) >> shift);
}

/* How much a pulse speaks louder than no pulse, for a slot's two logits; as in DECISION. */
static inline int16_t sea_policy_margin(const sea_policy_t *policy, const int32_t *pair)
{
    int64_t margin = ((int64_t)pair[1] - pair[0]) >> policy->margin_shift;
    if (margin > INT16_MAX) {
        return INT16_MAX;
    }
    return margin < INT16_MIN ? (int16_t)INT16_MIN : (int16_t)margin;
}

#endif
