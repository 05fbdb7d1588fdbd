#include "sea_envelope.h"

#define PICO UINT64_C(1000000)

static void move_window(sea_window_t *window, uint64_t now_us)
{
    if (now_us < window->end_us) {
        return;
    }
    if (window->end_us == 0 || now_us - window->end_us >= (uint64_t)SEA_WINDOW_BUCKETS * SEA_WINDOW_US) {
        *window = (sea_window_t){.end_us = now_us + SEA_WINDOW_US}; /* all of it is past */
        return;
    }
    while (window->end_us <= now_us) {
        for (size_t i = SEA_WINDOW_BUCKETS; i > 0; i--) {
            window->buckets[i] = window->buckets[i - 1];
        }
        window->buckets[0] = (sea_bucket_t){0};
        window->end_us += SEA_WINDOW_US;
    }
}

#ifndef SEA_BROKEN_RAMP
/* elapsed * rate, at most what is left; without overflow after any pause. */
static uint64_t smaller(uint64_t elapsed, uint32_t rate, uint64_t left)
{
    return elapsed > left / rate ? left : elapsed * rate;
}
#endif

void sea_envelope_move(sea_envelope_t *envelope, uint32_t target_uA, uint64_t now_us)
{
    const uint64_t target = target_uA * PICO;
    const uint64_t elapsed = now_us - envelope->ramp_us;
    envelope->ramp_us = now_us;
    move_window(&envelope->window, now_us);
#ifdef SEA_BROKEN_RAMP
    envelope->set_pA = target;
#else
    if (envelope->set_pA < target) {
        envelope->set_pA += smaller(elapsed, SEA_RAMP_UP_UA_S, target - envelope->set_pA);
    } else {
        envelope->set_pA -= smaller(elapsed, SEA_RAMP_DOWN_UA_S, envelope->set_pA - target);
    }
#endif
    (void)elapsed;
}

uint32_t sea_envelope_set_uA(const sea_envelope_t *envelope)
{
    return (uint32_t)(envelope->set_pA / PICO);
}

sea_bucket_t sea_envelope_sums(const sea_envelope_t *envelope)
{
    sea_bucket_t sums = {0};
    for (size_t i = 0; i <= SEA_WINDOW_BUCKETS; i++) {
        sums.energy_aJ += envelope->window.buckets[i].energy_aJ;
        sums.toggles = (uint16_t)(sums.toggles + envelope->window.buckets[i].toggles);
        sums.overruns = (uint16_t)(sums.overruns + envelope->window.buckets[i].overruns);
    }
    return sums;
}

static uint64_t energy_aJ(const sea_envelope_t *envelope, uint32_t amplitude_uA, uint16_t width_us)
{
    const uint32_t ohm = envelope->impedance_ohm > SEA_DOSE_OHM ? envelope->impedance_ohm : SEA_DOSE_OHM;
    return (uint64_t)amplitude_uA * amplitude_uA * ohm * width_us;
}

bool sea_envelope_dose_allows(const sea_envelope_t *envelope, const sea_effective_t *limits, uint32_t amplitude_uA,
                              uint16_t width_us)
{
    const uint64_t cap = (uint64_t)limits->dose_uW * SEA_WINDOW_BUCKETS * SEA_WINDOW_US * PICO;
    return sea_envelope_sums(envelope).energy_aJ + energy_aJ(envelope, amplitude_uA, width_us) <= cap;
}

static bool complies(const sea_effective_t *limits, uint64_t peak_uV)
{
    return peak_uV + SEA_COMPLIANCE_MARGIN_MV * UINT64_C(1000) <= limits->v_max_mV * UINT64_C(1000);
}

bool sea_envelope_complies(const sea_envelope_t *envelope, const sea_effective_t *limits, uint32_t amplitude_uA)
{
    return complies(limits, (uint64_t)amplitude_uA * envelope->impedance_ohm);
}

void sea_envelope_gave(sea_envelope_t *envelope, uint32_t amplitude_uA, uint16_t width_us)
{
    envelope->window.buckets[0].energy_aJ += energy_aJ(envelope, amplitude_uA, width_us);
}

uint8_t sea_envelope_measured(sea_envelope_t *envelope, const sea_effective_t *limits, uint32_t amplitude_uA,
                              uint32_t peak_uV)
{
    uint8_t cause = 0;
    envelope->impedance_ohm = peak_uV / amplitude_uA;
    if (envelope->impedance_ohm > SEA_OPEN_OHM) {
        cause = SEA_CAUSE_OPEN;
    } else if (envelope->impedance_ohm < SEA_SHORT_OHM) {
        cause = SEA_CAUSE_SHORT;
    } else if (!complies(limits, peak_uV)) {
        cause = SEA_CAUSE_COMPLIANCE;
    }
    return cause;
}
