#include "sea_internal.h"

#ifdef SEA_BROKEN_BALANCE
#define UNBALANCE_UA 1
#else
#define UNBALANCE_UA 0
#endif

static void count(uint32_t *counter)
{
    if (*counter != UINT32_MAX) {
        (*counter)++;
    }
}

static bool slot_is_set(const sea_decision_t *decision, uint16_t slot)
{
    return (((unsigned)decision->mask[slot / 8u] >> (slot % 8u)) & 1u) != 0;
}

/* First slot with a pulse that has not been dealt with; `slots` when there is none. */
static uint16_t next_pulse(const sea_decision_t *decision)
{
    uint16_t slot = decision->next;
    while (slot < decision->slots && !slot_is_set(decision, slot)) {
        slot++;
    }
    return slot;
}

static uint64_t slot_start(const sea_decision_t *decision, uint16_t slot)
{
    return slot < decision->slots ? decision->start_us + (uint64_t)slot * decision->period_us : SEA_NEVER;
}

static uint64_t lease_end(const sea_decision_t *decision)
{
#ifdef SEA_BROKEN_LEASE
    (void)decision;
    return SEA_NEVER;
#else
    return decision->lease_until_us;
#endif
}

static void count_lapsed(sea_core_t *core, sea_decision_t *decision)
{
    while (decision->id != 0 && (decision->next = next_pulse(decision)) < decision->slots) {
        decision->next++;
        count(&core->counters.slots_lapsed);
    }
}

static bool has_fixed(const sea_core_t *core)
{
    return core->config->fallback.amplitude_uA > 0;
}

/* Where the set point is to go: masks only gate pulses. */
static uint32_t target_uA(const sea_core_t *core)
{
    uint32_t target = 0;
    if (core->state == SEA_STATE_CLOSED_LOOP) {
        target = core->current.amplitude_uA;
    } else if (core->state == SEA_STATE_FALLBACK) {
        target = core->config->fallback.amplitude_uA;
    }
    return target;
}

static void enter(sea_core_t *core, uint8_t after)
{
    const bool fixed = after == SEA_STATE_FALLBACK && has_fixed(core);
    if (after != SEA_STATE_FALLBACK && after != SEA_STATE_ARMED && after != SEA_STATE_CLOSED_LOOP) {
        core->envelope.set_pA = 0; /* at once: STOP and SAFE_OFF are exempt from the ramp */
    }
    core->fixed_us = core->now_us;
    if (core->pulsed && core->fixed_us - core->last_pulse_us < core->config->fallback.period_us) {
        core->fixed_us = core->last_pulse_us + core->config->fallback.period_us;
    }
    core->sensing_bad = 0;
    core->not_finite = 0;
    core->late = 0;
    core->port->ground(core->port->ctx, after != SEA_STATE_CLOSED_LOOP && !fixed);
}

bool sea_event(sea_core_t *core, uint8_t event, uint8_t cause)
{
    const uint8_t before = core->state;
    const uint8_t after = SEA_NEXT[before][event];
    if (after == SEA_REFUSED) {
        return false;
    }
    core->state = after;
    if (after != before) {
        core->cause = cause;
    }
    if (after != SEA_STATE_CLOSED_LOOP) {
        core->current.id = 0;
        core->queued.id = 0;
    }
    if (event != SEA_EVENT_HELLO && event != SEA_EVENT_ORDER) {
        core->armable = false; /* a handshake arms once */
    }
    if (after != before) {
        enter(core, after);
        if (core->session != 0) {
            sea_send_status(core, 0);
        }
    }
    return true;
}

void sea_promote(sea_core_t *core)
{
    if (core->queued.id != 0 && core->queued.start_us <= core->now_us) {
        core->current = core->queued;
        core->queued.id = 0;
    }
}

bool sea_strike(uint8_t *in_a_row, uint32_t limit)
{
    if (*in_a_row < limit) {
        (*in_a_row)++;
    }
    return *in_a_row >= limit;
}

void sea_degrade(sea_core_t *core, uint32_t bit, uint8_t cause)
{
    core->faults |= bit;
    if (core->state == SEA_STATE_CLOSED_LOOP) {
        count_lapsed(core, &core->current);
        count_lapsed(core, &core->queued);
        (void)sea_event(core, SEA_EVENT_DEGRADE, cause);
    }
}

static void fault(sea_core_t *core, uint32_t bit, uint8_t cause)
{
    core->faults |= bit;
    (void)sea_event(core, SEA_EVENT_FAULT, cause);
}

static void measure(sea_core_t *core, uint32_t amplitude_uA, const sea_given_t *given)
{
#ifndef SEA_BROKEN_BALANCE
    if (given->residual_pC > (int32_t)SEA_RESIDUAL_MAX_PC || given->residual_pC < -(int32_t)SEA_RESIDUAL_MAX_PC) {
        fault(core, SEA_FAULT_RESIDUAL, SEA_CAUSE_RESIDUAL);
        return;
    }
#endif
    if (given->measured) {
        const uint8_t cause = sea_envelope_measured(&core->envelope, &core->effective, amplitude_uA, given->peak_uV);
        if (cause != 0) {
            fault(core, SEA_FAULT_ELECTRODE, cause);
        }
    }
}

/* Whether electrode and dose allow a pulse now. */
static bool may_give(sea_core_t *core, uint32_t amplitude_uA, uint16_t width_us)
{
    bool may = false;
    if (!sea_envelope_complies(&core->envelope, &core->effective, amplitude_uA)) {
        fault(core, SEA_FAULT_ELECTRODE, SEA_CAUSE_COMPLIANCE);
    } else if (!sea_envelope_dose_allows(&core->envelope, &core->effective, amplitude_uA, width_us)) {
        core->faults |= SEA_FAULT_DOSE;
        count(&core->counters.slots_dose);
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
        fault(core, SEA_FAULT_STIMULATOR, SEA_CAUSE_STIMULATOR);
        return;
    }
    count(&core->counters.pulses);
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

static void give_slot(sea_core_t *core, uint64_t due_us)
{
    sea_decision_t *decision = &core->current;
    const uint32_t amplitude_uA = decision->amplitude_uA > 0 ? ramped(core, decision->width_us) : 0;
    decision->next = (uint16_t)(next_pulse(decision) + 1u);
    if (core->now_us >= lease_end(decision)) {
        count(&core->counters.slots_lapsed);
    } else if (core->now_us - due_us > decision->period_us / 2u) {
        count(&core->counters.slots_late);
        core->faults |= SEA_FAULT_LATE;
    } else if (core->pulsed && core->now_us - core->last_pulse_us < SEA_SLOT_PERIOD_MIN_US) {
        count(&core->counters.slots_too_soon);
    } else if (amplitude_uA > 0 && may_give(core, amplitude_uA, decision->width_us) &&
               count_toggles(core, decision->period_us)) {
        give_pulse(core, amplitude_uA, decision->width_us);
    }
}

/* FALLBACK with a fixed setting: one pulse a period, the set point on its way to the setting's. */
static void give_fixed(sea_core_t *core)
{
    const sea_fixed_t *fixed = &core->config->fallback;
    const uint32_t amplitude_uA = ramped(core, fixed->width_us);
    core->fixed_us = core->now_us + fixed->period_us;
    if (amplitude_uA > 0 && may_give(core, amplitude_uA, fixed->width_us)) {
        give_pulse(core, amplitude_uA, fixed->width_us);
    }
}

/* A fixed setting must be inside every limit as it stands: nothing of it is lowered. */
static bool fixed_is_allowed(const sea_fixed_t *fixed, sea_effective_t effective)
{
    const sea_msg_set_stim_t order = {.slot_period_us = fixed->period_us,
                                      .slots = 1,
                                      .amplitude_uA = fixed->amplitude_uA,
                                      .width_us = fixed->width_us,
                                      .lease_ms = SEA_LEASE_MIN_MS};
    const sea_verdict_t verdict = sea_judge(&order, effective);
    return fixed->amplitude_uA == 0 || (verdict.code == 0 && verdict.clamp == 0);
}

sea_status_t sea_core_init(sea_core_t *core, const sea_config_t *config, const sea_port_t *port)
{
    if (core == NULL || config == NULL || port == NULL || port->tx == NULL || port->stimulate == NULL ||
        port->ground == NULL) {
        return SEA_ERR_ARGUMENT;
    }
    const sea_policy_t *policy = config->policy;
    if (policy != NULL && (policy->infer == NULL || policy->reset == NULL || policy->n_obs == 0 ||
                           policy->n_obs > SEA_OBSERVATION_MAX || policy->slots == 0 ||
                           policy->slots > SEA_DECIDED_SLOTS_MAX)) {
        return SEA_ERR_ARGUMENT;
    }
    const sea_effective_t effective = sea_tighten(&config->limits);
    if (!fixed_is_allowed(&config->fallback, effective)) {
        return SEA_ERR_ARGUMENT;
    }
    *core = (sea_core_t){.config = config, .port = port, .state = SEA_STATE_BOOT, .cause = config->boot_cause};
    core->effective = effective;
    sea_rx_init(&core->rx);
    port->ground(port->ctx, true);
    return SEA_OK;
}

sea_status_t sea_core_tick(sea_core_t *core, uint64_t now_us)
{
    if (core == NULL) {
        return SEA_ERR_ARGUMENT;
    }
    if (now_us < core->now_us) {
        core->faults |= SEA_FAULT_CLOCK;
        return SEA_ERR_CLOCK;
    }
    core->now_us = now_us;
    sea_envelope_move(&core->envelope, target_uA(core), now_us);
    (void)sea_event(core, SEA_EVENT_READY, core->config->boot_cause); /* refused but in BOOT */
    while (core->state == SEA_STATE_CLOSED_LOOP) {
        const uint64_t lease_at = lease_end(&core->current);
        const uint64_t switch_at = core->queued.id != 0 ? core->queued.start_us : SEA_NEVER;
        const uint64_t slot_at = slot_start(&core->current, next_pulse(&core->current));
        if (lease_at <= now_us && lease_at <= switch_at && lease_at <= slot_at) {
            count_lapsed(core, &core->current);
            count_lapsed(core, &core->queued);
            core->faults |= SEA_FAULT_LEASE;
            (void)sea_event(core, SEA_EVENT_LEASE_END, SEA_CAUSE_LEASE_ENDED);
        } else if (switch_at <= now_us && switch_at <= slot_at) {
            sea_promote(core);
        } else if (slot_at <= now_us) {
            give_slot(core, slot_at);
        } else {
            break;
        }
    }
    if (core->state == SEA_STATE_FALLBACK && has_fixed(core) && core->fixed_us <= now_us) {
        give_fixed(core);
    }
    return SEA_OK;
}

uint64_t sea_core_next_us(const sea_core_t *core)
{
    if (core->state == SEA_STATE_BOOT) {
        return core->now_us;
    }
    if (core->state == SEA_STATE_FALLBACK && has_fixed(core)) {
        return core->fixed_us;
    }
    if (core->state != SEA_STATE_CLOSED_LOOP) {
        return SEA_NEVER;
    }
    uint64_t next = lease_end(&core->current);
    const uint64_t slot_at = slot_start(&core->current, next_pulse(&core->current));
    if (slot_at < next) {
        next = slot_at;
    }
    if (core->queued.id != 0 && core->queued.start_us < next) {
        next = core->queued.start_us;
    }
    return next;
}

sea_status_t sea_arrive(sea_core_t *core, uint64_t now_us)
{
    if (now_us < core->now_us) {
        core->faults |= SEA_FAULT_CLOCK;
        return SEA_ERR_CLOCK;
    }
    if (now_us > core->now_us) {
        (void)sea_core_tick(core, now_us - 1u);
        core->now_us = now_us;
        sea_envelope_move(&core->envelope, target_uA(core), now_us);
    }
    return SEA_OK;
}

/* HELLO and STOP are taken from anybody; with a device key the others need the session's tag. */
static bool is_authentic(const sea_core_t *core, const sea_frame_t *frame)
{
    if (core->config->device_key == NULL || frame->type == SEA_HELLO || frame->type == SEA_STOP) {
        return true;
    }
    return core->session != 0 && frame->sequence <= SEA_AUTH_LAST &&
           sea_auth_check(&core->auth, SEA_FROM_HOST, frame->body, (size_t)(frame->auth - frame->body), frame->auth);
}

sea_status_t sea_core_feed(sea_core_t *core, const uint8_t *bytes, size_t size, uint64_t now_us)
{
    if (core == NULL || (bytes == NULL && size > 0)) {
        return SEA_ERR_ARGUMENT;
    }
    const sea_status_t status = sea_arrive(core, now_us); /* a bad clock: the bytes are taken, a STOP may be among them */
    for (size_t i = 0; i < size; i++) {
        sea_frame_t frame;
        const sea_rx_event_t event = sea_rx_push(&core->rx, bytes[i], &frame);
        if (event == SEA_RX_NONE) {
            continue;
        }
        if (event == SEA_RX_FRAME || (event == SEA_RX_AUTH && (core->config->device_key != NULL || frame.type == SEA_STOP))) {
            count(&core->counters.frames);
            if (is_authentic(core, &frame)) {
                sea_take(core, &frame);
            } else { /* unanswered: it tells a forger nothing */
                count(&core->counters.frames_forged);
                core->faults |= SEA_FAULT_FORGED;
            }
            continue;
        }
        count(&core->counters.frames_bad);
        if (event == SEA_RX_OVERRUN) {
            core->faults |= SEA_FAULT_OVERRUN;
        }
        if (core->session != 0) {
            sea_send_nack(core, 0, 0, &(sea_verdict_t){.code = SEA_NACK_CODE_BAD_FRAME});
        }
    }
    return status;
}

sea_status_t sea_core_person(sea_core_t *core)
{
    if (core == NULL) {
        return SEA_ERR_ARGUMENT;
    }
    if (!sea_event(core, SEA_EVENT_PERSON, SEA_CAUSE_PERSON)) {
        return SEA_ERR_STATE;
    }
    core->envelope.impedance_ohm = 0; /* whoever pressed it has seen to the electrode: it is measured afresh */
    return SEA_OK;
}

void sea_core_overrun(sea_core_t *core)
{
    sea_bucket_t *now = &core->envelope.window.buckets[0];
    count(&core->counters.overruns);
    core->faults |= SEA_FAULT_RECEIVER;
    if (now->overruns < SEA_OVERRUNS_MAX) {
        now->overruns++;
    }
    if (sea_envelope_sums(&core->envelope).overruns >= SEA_OVERRUNS_MAX) {
        sea_degrade(core, SEA_FAULT_RECEIVER, SEA_CAUSE_OVERRUN);
    }
}

void sea_core_corrupt(sea_core_t *core)
{
    fault(core, SEA_FAULT_MEMORY, SEA_CAUSE_MEMORY);
}

bool sea_core_blanks(const sea_core_t *core, uint64_t sample_us)
{
    return core->pulsed && sample_us >= core->last_pulse_us && sample_us - core->last_pulse_us < SEA_BLANK_US;
}

uint8_t sea_core_state(const sea_core_t *core)
{
    return core->state;
}

uint8_t sea_core_cause(const sea_core_t *core)
{
    return core->cause;
}

uint64_t sea_core_lease_until_us(const sea_core_t *core)
{
    return core->state == SEA_STATE_CLOSED_LOOP ? core->current.lease_until_us : 0;
}
