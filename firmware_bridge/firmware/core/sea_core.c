#include "sea_internal.h"

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
    *core = (sea_core_t){.config = config,
                         .port = port,
                         .device_key = config->device_key,
                         .again = {{config, port, config->device_key}, {config, port, config->device_key}},
                         .effective = effective,
                         .key_sum = sea_key_sum(config->device_key),
                         .state = SEA_STATE_BOOT,
                         .cause = config->boot_cause};
    sea_rx_init(&core->rx);
    port->ground(port->ctx, true);
    sea_seal(core);
    return SEA_OK;
}

sea_status_t sea_live(sea_core_t *core, uint64_t now_us)
{
    if (now_us < core->now_us) {
        core->faults |= SEA_FAULT_CLOCK;
        return SEA_ERR_CLOCK;
    }
    core->now_us = now_us;
    sea_envelope_move(&core->envelope, sea_target_uA(core), now_us);
    (void)sea_event(core, SEA_EVENT_READY, core->config->boot_cause); /* refused but in BOOT */
    while (core->state == SEA_STATE_CLOSED_LOOP) {
        const uint64_t lease_at = sea_lease_end(&core->current);
        const uint64_t switch_at = core->queued.id != 0 ? core->queued.start_us : SEA_NEVER;
        const uint64_t slot_at = sea_slot_start(&core->current, sea_next_pulse(&core->current));
        if (lease_at <= now_us && lease_at <= switch_at && lease_at <= slot_at) {
            sea_count_lapsed(core, &core->current);
            sea_count_lapsed(core, &core->queued);
            core->faults |= SEA_FAULT_LEASE;
            (void)sea_event(core, SEA_EVENT_LEASE_END, SEA_CAUSE_LEASE_ENDED);
        } else if (switch_at <= now_us && switch_at <= slot_at) {
            sea_promote(core);
        } else if (slot_at <= now_us) {
            sea_give_slot(core, slot_at);
        } else {
            break;
        }
    }
    if (core->state == SEA_STATE_FALLBACK && sea_has_fixed(core) && core->fixed_us <= now_us) {
        sea_give_fixed(core);
    }
    return SEA_OK;
}

sea_status_t sea_core_tick(sea_core_t *core, uint64_t now_us)
{
    if (core == NULL) {
        return SEA_ERR_ARGUMENT;
    }
    sea_open(core, now_us);
    const sea_status_t status = sea_live(core, now_us);
    sea_seal(core);
    return status;
}

uint64_t sea_core_next_us(const sea_core_t *core)
{
    if (core->state == SEA_STATE_BOOT) {
        return core->now_us;
    }
    if (core->state == SEA_STATE_FALLBACK && sea_has_fixed(core)) {
        return core->fixed_us;
    }
    if (core->state != SEA_STATE_CLOSED_LOOP) {
        return SEA_NEVER;
    }
    uint64_t next = sea_lease_end(&core->current);
    const uint64_t slot_at = sea_slot_start(&core->current, sea_next_pulse(&core->current));
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
        (void)sea_live(core, now_us - 1u);
        core->now_us = now_us;
        sea_envelope_move(&core->envelope, sea_target_uA(core), now_us);
    }
    return SEA_OK;
}

/* HELLO and STOP are taken from anybody; with a device key the others need the session's tag. */
static bool is_authentic(const sea_core_t *core, const sea_frame_t *frame)
{
    if (core->device_key == NULL || frame->type == SEA_HELLO || frame->type == SEA_STOP) {
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
    sea_open(core, now_us);
    const sea_status_t status = sea_arrive(core, now_us); /* a bad clock: the bytes are taken, a STOP may be among them */
    for (size_t i = 0; i < size; i++) {
        sea_frame_t frame;
        const sea_rx_event_t event = sea_rx_push(&core->rx, bytes[i], &frame);
        if (event == SEA_RX_NONE) {
            continue;
        }
        if (event == SEA_RX_FRAME || (event == SEA_RX_AUTH && (core->device_key != NULL || frame.type == SEA_STOP))) {
            sea_count(&core->counters.frames);
            if (is_authentic(core, &frame)) {
                sea_take(core, &frame);
            } else { /* unanswered: it tells a forger nothing */
                sea_count(&core->counters.frames_forged);
                core->faults |= SEA_FAULT_FORGED;
            }
            continue;
        }
        sea_count(&core->counters.frames_bad);
        if (event == SEA_RX_OVERRUN) {
            core->faults |= SEA_FAULT_OVERRUN;
        }
        if (core->session != 0) {
            sea_send_nack(core, 0, 0, &(sea_verdict_t){.code = SEA_NACK_CODE_BAD_FRAME});
        }
    }
    sea_seal(core);
    return status;
}

sea_status_t sea_core_person(sea_core_t *core)
{
    if (core == NULL) {
        return SEA_ERR_ARGUMENT;
    }
    sea_open(core, core->now_us);
    const bool done = !core->corrupt && sea_event(core, SEA_EVENT_PERSON, SEA_CAUSE_PERSON);
    if (done) {
        core->envelope.impedance_ohm = 0; /* whoever pressed it has seen to the electrode: it is measured afresh */
    }
    sea_seal(core);
    return done ? SEA_OK : SEA_ERR_STATE;
}

void sea_core_overrun(sea_core_t *core)
{
    sea_bucket_t *now = &core->envelope.window.buckets[0];
    sea_open(core, core->now_us);
    sea_count(&core->counters.overruns);
    core->faults |= SEA_FAULT_RECEIVER;
    if (now->overruns < SEA_OVERRUNS_MAX) {
        now->overruns++;
    }
    if (sea_envelope_sums(&core->envelope).overruns >= SEA_OVERRUNS_MAX) {
        sea_degrade(core, SEA_FAULT_RECEIVER, SEA_CAUSE_OVERRUN);
    }
    sea_seal(core);
}

void sea_core_corrupt(sea_core_t *core)
{
    sea_open(core, core->now_us);
    if (!core->corrupt) {
        sea_corrupted(core);
    }
    sea_seal(core);
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
