#include "sea_internal.h"

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

static void count_lapsed(sea_core_t *core, sea_decision_t *decision)
{
    while (decision->id != 0 && (decision->next = next_pulse(decision)) < decision->slots) {
        decision->next++;
        count(&core->counters.slots_lapsed);
    }
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
        core->port->ground(core->port->ctx, after != SEA_STATE_CLOSED_LOOP);
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

static void fault(sea_core_t *core, uint32_t bit, uint8_t cause)
{
    core->faults |= bit;
    (void)sea_event(core, SEA_EVENT_FAULT, cause);
}

static void give_pulse(sea_core_t *core)
{
    const int32_t amplitude = (int32_t)core->current.amplitude_uA; /* the limits keep it far below 2^31 */
    const uint16_t width = core->current.width_us;
    const sea_pulse_t pulse = {
        .start_us = core->now_us,
        .amplitude_uA = {-amplitude, amplitude}, /* cathodic first */
        .width_us = {width, width},
    };
    int32_t residual = 0;
    core->pulsed = true;
    core->last_pulse_us = core->now_us;
    if (!core->port->stimulate(core->port->ctx, &pulse, &residual)) {
        fault(core, SEA_FAULT_STIMULATOR, SEA_CAUSE_STIMULATOR);
        return;
    }
    count(&core->counters.pulses);
    if (residual > (int32_t)SEA_RESIDUAL_MAX_PC || residual < -(int32_t)SEA_RESIDUAL_MAX_PC) {
        fault(core, SEA_FAULT_RESIDUAL, SEA_CAUSE_RESIDUAL);
    }
}

static void give_slot(sea_core_t *core, uint64_t due_us)
{
    sea_decision_t *decision = &core->current;
    decision->next = (uint16_t)(next_pulse(decision) + 1u);
    if (core->now_us >= decision->lease_until_us) {
        count(&core->counters.slots_lapsed);
    } else if (core->now_us - due_us > decision->period_us / 2u) {
        count(&core->counters.slots_late);
        core->faults |= SEA_FAULT_LATE;
    } else if (core->pulsed && core->now_us - core->last_pulse_us < SEA_SLOT_PERIOD_MIN_US) {
        count(&core->counters.slots_too_soon);
    } else if (decision->amplitude_uA > 0) {
        give_pulse(core);
    }
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
    *core = (sea_core_t){.config = config, .port = port, .state = SEA_STATE_BOOT, .cause = config->boot_cause};
    core->effective = sea_tighten(config->amplitude_limit_uA, config->electrode_area);
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
    (void)sea_event(core, SEA_EVENT_READY, core->config->boot_cause); /* refused but in BOOT */
    while (core->state == SEA_STATE_CLOSED_LOOP) {
        const uint64_t lease_end = core->current.lease_until_us;
        const uint64_t switch_at = core->queued.id != 0 ? core->queued.start_us : SEA_NEVER;
        const uint64_t slot_at = slot_start(&core->current, next_pulse(&core->current));
        if (lease_end <= now_us && lease_end <= switch_at && lease_end <= slot_at) {
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
    return SEA_OK;
}

uint64_t sea_core_next_us(const sea_core_t *core)
{
    if (core->state == SEA_STATE_BOOT) {
        return core->now_us;
    }
    if (core->state != SEA_STATE_CLOSED_LOOP) {
        return SEA_NEVER;
    }
    uint64_t next = core->current.lease_until_us;
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
    return sea_event(core, SEA_EVENT_PERSON, SEA_CAUSE_PERSON) ? SEA_OK : SEA_ERR_STATE;
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
