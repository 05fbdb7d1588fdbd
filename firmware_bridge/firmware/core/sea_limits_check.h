/* The judgement of an order: refused outside the ranges, lowered where the electrode or a run-time limit is narrower. */
#ifndef SEA_LIMITS_CHECK_H
#define SEA_LIMITS_CHECK_H

#include "sea_codes.h"
#include "sea_limits.h"
#include "sea_messages.h"

/* Limits in force: the least of the compiled and the run-time ones. */
typedef struct {
    uint32_t amplitude_uA;
    uint32_t electrode_area; /* 10^-6 cm^2 */
    uint32_t v_max_mV;
    uint32_t dose_uW;
    uint32_t toggles; /* in a rolling window */
} sea_effective_t;

typedef struct {
    uint8_t code; /* NACK code; 0 = accepted */
    uint64_t value; /* the refused value and its range */
    uint64_t low;
    uint64_t high;
    uint32_t amplitude_uA; /* applied */
    uint16_t clamp; /* CLAMP bits */
} sea_verdict_t;

/* Run-time limits merged with the compiled ones: they tighten, never loosen. */
sea_effective_t sea_tighten(const sea_effective_t *wanted);

/* The greatest amplitude for a width, whatever was ordered. */
uint32_t sea_ceiling(uint32_t width_us, sea_effective_t effective);

sea_verdict_t sea_judge(const sea_msg_set_stim_t *order, sea_effective_t effective);

#endif
