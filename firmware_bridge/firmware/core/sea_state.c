#include "sea_internal.h"

/* Of what must not change by itself between two calls. */
static uint32_t sum(const sea_core_t *core)
{
    uint32_t all = sea_sum(0, (const uint8_t *)core, offsetof(sea_core_t, seal));
    all = sea_sum(all, (const uint8_t *)core->config, sizeof *core->config);
    all = sea_sum(all, (const uint8_t *)core->port, sizeof *core->port);
    return all;
}

uint32_t sea_key_sum(const uint8_t *device_key)
{
    return device_key == NULL ? 0 : sea_sum(0, device_key, SEA_KEY_SIZE);
}

void sea_open(sea_core_t *core, uint64_t now_us)
{
    bool same = true; /* seen to first: nothing else can be read without these */
    if (core->config != core->again[0].config) {
        core->config = core->again[1].config;
        same = false;
    }
    if (core->port != core->again[0].port) {
        core->port = core->again[1].port;
        same = false;
    }
    if (core->device_key != core->again[0].device_key) {
        core->device_key = core->again[1].device_key;
        same = false;
    }
    if (!same || sum(core) != core->seal || (!core->corrupt && sea_key_sum(core->device_key) != core->key_sum)) {
        core->now_us = now_us;
        sea_corrupted(core);
    }
}

void sea_seal(sea_core_t *core)
{
    core->seal = sum(core);
}

void sea_corrupted(sea_core_t *core)
{
    core->corrupt = true;
    sea_forget_observation(core);
    core->envelope = (sea_envelope_t){0};
    core->state = SEA_STATE_BOOT; /* from wherever it was, or seems to have been, into SAFE_OFF */
    sea_fault(core, SEA_FAULT_MEMORY, SEA_CAUSE_MEMORY);
}

static void enter(sea_core_t *core, uint8_t after)
{
    const bool fixed = after == SEA_STATE_FALLBACK && sea_has_fixed(core);
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
        sea_count_lapsed(core, &core->current);
        sea_count_lapsed(core, &core->queued);
        (void)sea_event(core, SEA_EVENT_DEGRADE, cause);
    }
}

void sea_fault(sea_core_t *core, uint32_t bit, uint8_t cause)
{
    core->faults |= bit;
    (void)sea_event(core, SEA_EVENT_FAULT, cause);
}
