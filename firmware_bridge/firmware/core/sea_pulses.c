#include "sea_internal.h"

#ifdef SEA_BROKEN_BALANCE
#define UNBALANCE_UA 1
#else
#define UNBALANCE_UA 0
#endif

static bool slot_is_set(const sea_decision_t *decision, uint16_t slot)
{
    return (((unsigned)decision->mask[slot / 8u] >> (slot % 8u)) & 1u) != 0;
}

uint16_t sea_next_pulse(const sea_decision_t *decision)
{
    uint16_t slot = decision->next;
    while (slot < decision->slots && !slot_is_set(decision, slot)) {
        slot++;
    }
    return slot;
}

uint64_t sea_slot_start(const sea_decision_t *decision, uint16_t slot)
{
    return slot < decision->slots ? decision->start_us + (uint64_t)slot * decision->period_us : SEA_NEVER;
}

uint64_t sea_lease_end(const sea_decision_t *decision)
{
#ifdef SEA_BROKEN_LEASE
    (void)decision;
    return SEA_NEVER;
#else
    return decision->lease_until_us;
#endif
}

void sea_count_lapsed(sea_core_t *core, sea_decision_t *decision)
{
    while (decision->id != 0 && (decision->next = sea_next_pulse(decision)) < decision->slots) {
        decision->next++;
        sea_count(&core->counters.slots_lapsed);
    }
}

bool sea_has_fixed(const sea_core_t *core)
{
    return core->config->fallback.amplitude_uA > 0;
}

uint32_t sea_target_uA(const sea_core_t *core)
{
    uint32_t target = 0;
    if (core->state == SEA_STATE_CLOSED_LOOP) {
        target = core->current.amplitude_uA;
    } else if (core->state == SEA_STATE_FALLBACK) {
        target = core->config->fallback.amplitude_uA;
    }
    return target;
}

static void measure(sea_core_t *core, uint32_t amplitude_uA, const sea_given_t *given)
{
#ifndef SEA_BROKEN_BALANCE
    if (given->residual_pC > (int32_t)SEA_RESIDUAL_MAX_PC || given->residual_pC < -(int32_t)SEA_RESIDUAL_MAX_PC) {
        sea_fault(core, SEA_FAULT_RESIDUAL, SEA_CAUSE_RESIDUAL);
        return;
    }
#endif
    if (given->measured) {
        const uint8_t cause = sea_envelope_measured(&core->envelope, &core->effective, amplitude_uA, given->peak_uV);
        if (cause != 0) {
            sea_fault(core, SEA_FAULT_ELECTRODE, cause);
        }
    }
}

/* Whether electrode and dose allow a pulse now. */
static bool may_give(sea_core_t *core, uint32_t amplitude_uA, uint16_t width_us)
{
    bool may = false;
    if (!sea_envelope_complies(&core->envelope, &core->effective, amplitude_uA)) {
        sea_fault(core, SEA_FAULT_ELECTRODE, SEA_CAUSE_COMPLIANCE);
    } else if (!sea_envelope_dose_allows(&core->envelope, &core->effective, amplitude_uA, width_us)) {
        core->faults |= SEA_FAULT_DOSE;
        sea_count(&core->counters.slots_dose);
    } else {
        may = true;
    }
    return may;
}

/* The one place where pulses come from. */
static void give_pulse(sea_core_t *core, uint32_t amplitude_uA, uint16_t width_us)
{
    const int32_t amplitude = (int32_t)amplitude_uA; /* the limits keep it far below 2^31 */
    const sea_pulse_t pulse = {
        .start_us = core->now_us,
        .amplitude_uA = {-amplitude, amplitude + UNBALANCE_UA}, /* cathodic first */
        .width_us = {width_us, width_us},
    };
    sea_given_t given = {0};
    core->pulsed = true;
    core->last_pulse_us = core->now_us;
    sea_envelope_gave(&core->envelope, amplitude_uA, width_us);
    if (!core->port->stimulate(core->port->ctx, &pulse, &given)) {
        sea_fault(core, SEA_FAULT_STIMULATOR, SEA_CAUSE_STIMULATOR);
        return;
    }
    sea_count(&core->counters.pulses);
    measure(core, amplitude_uA, &given);
}

/* A pulse after a pause is stimulation switched off and on again; false: that happened too often. */
static bool count_toggles(sea_core_t *core, uint32_t period_us)
{
    const uint64_t pause = core->now_us - core->last_pulse_us;
    if (core->pulsed && (pause < SEA_TOGGLE_GAP_US || pause < 2u * (uint64_t)period_us)) {
        return true;
    }
    sea_bucket_t *now = &core->envelope.window.buckets[0];
    if (sea_envelope_sums(&core->envelope).toggles + 2u > core->effective.toggles) {
        sea_degrade(core, SEA_FAULT_LIMIT_CYCLE, SEA_CAUSE_LIMIT_CYCLE);
        return false;
    }
    now->toggles = (uint16_t)(now->toggles + 2u);
    return true;
}

static uint32_t ramped(const sea_core_t *core, uint16_t width_us)
{
    const uint32_t ceiling = sea_ceiling(width_us, core->effective);
    const uint32_t set = sea_envelope_set_uA(&core->envelope);
    return set < ceiling ? set : ceiling;
}

void sea_give_slot(sea_core_t *core, uint64_t due_us)
{
    sea_decision_t *decision = &core->current;
    const uint32_t amplitude_uA = decision->amplitude_uA > 0 ? ramped(core, decision->width_us) : 0;
    decision->next = (uint16_t)(sea_next_pulse(decision) + 1u);
    if (core->now_us >= sea_lease_end(decision)) {
        sea_count(&core->counters.slots_lapsed);
    } else if (core->now_us - due_us > decision->period_us / 2u) {
        sea_count(&core->counters.slots_late);
        core->faults |= SEA_FAULT_LATE;
    } else if (core->pulsed && core->now_us - core->last_pulse_us < SEA_SLOT_PERIOD_MIN_US) {
        sea_count(&core->counters.slots_too_soon);
    } else if (amplitude_uA > 0 && may_give(core, amplitude_uA, decision->width_us) &&
               count_toggles(core, decision->period_us)) {
        give_pulse(core, amplitude_uA, decision->width_us);
    }
}

/* FALLBACK with a fixed setting: one pulse a period, the set point on its way to the setting's. */
void sea_give_fixed(sea_core_t *core)
{
    const sea_fixed_t *fixed = &core->config->fallback;
    const uint32_t amplitude_uA = ramped(core, fixed->width_us);
    core->fixed_us = core->now_us + fixed->period_us;
    if (amplitude_uA > 0 && may_give(core, amplitude_uA, fixed->width_us)) {
        give_pulse(core, amplitude_uA, fixed->width_us);
    }
}
