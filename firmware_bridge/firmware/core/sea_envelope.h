/* What the envelope remembers from pulse to pulse: the ramped set point, rolling windows, the electrode's impedance.
 * Integers only: pA (µA/s × µs), 10^-18 J (µA² × ohm × µs), µV (µA × ohm). */
#ifndef SEA_ENVELOPE_H
#define SEA_ENVELOPE_H

#include "sea_codes.h"
#include "sea_limits_check.h"

typedef struct {
    uint64_t energy_aJ;
    uint16_t toggles;
    uint16_t overruns;
} sea_bucket_t;

/* Sums over the newest WINDOW_BUCKETS whole buckets and the one being filled: at least a window, at most a bucket more. */
typedef struct {
    uint64_t end_us; /* of the bucket being filled; 0: nothing yet */
    sea_bucket_t buckets[SEA_WINDOW_BUCKETS + 1u]; /* [0] is being filled */
} sea_window_t;

typedef struct {
    uint64_t ramp_us; /* the set point is that of this time */
    uint64_t set_pA;
    sea_window_t window;
    uint32_t impedance_ohm; /* at the newest pulse; 0: not measured */
} sea_envelope_t;

/* Moves the set point towards a target by what the time allows, and the window to now. */
void sea_envelope_move(sea_envelope_t *envelope, uint32_t target_uA, uint64_t now_us);

/* The amplitude that the ramp allows now. */
uint32_t sea_envelope_set_uA(const sea_envelope_t *envelope);

/* The sums of the window. */
sea_bucket_t sea_envelope_sums(const sea_envelope_t *envelope);

/* Whether one more pulse keeps the mean power below its cap. */
bool sea_envelope_dose_allows(const sea_envelope_t *envelope, const sea_effective_t *limits, uint32_t amplitude_uA,
                              uint16_t width_us);

/* Whether the stimulator can give an amplitude on the electrode as it was measured last. */
bool sea_envelope_complies(const sea_envelope_t *envelope, const sea_effective_t *limits, uint32_t amplitude_uA);

/* A pulse was given: counts its energy. */
void sea_envelope_gave(sea_envelope_t *envelope, uint32_t amplitude_uA, uint16_t width_us);

/* The voltage of a pulse was measured: the cause for SAFE_OFF, or 0. */
uint8_t sea_envelope_measured(sea_envelope_t *envelope, const sea_effective_t *limits, uint32_t amplitude_uA,
                              uint32_t peak_uV);

#endif
