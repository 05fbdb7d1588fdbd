#include "sea_internal.h"

void sea_send(sea_core_t *core, uint8_t type, const uint8_t *payload, size_t size)
{
    uint8_t out[SEA_FRAME_MAX];
    if (core->tx_sequence >= SEA_AUTH_LAST) {
        return; /* the host must open a new session: no sequence is used twice */
    }
    const sea_frame_t frame = {
        .version = SEA_PROTOCOL,
        .type = type,
        .sequence = ++core->tx_sequence,
        .session = core->session,
        .time_us = core->now_us,
        .payload = payload,
        .size = size,
    };
    core->port->tx(core->port->ctx, out, sea_frame_sign(out, &frame, &core->auth));
}

void sea_send_status(sea_core_t *core, uint32_t of_sequence)
{
    const sea_counters_t *counters = &core->counters;
    const sea_bucket_t sums = sea_envelope_sums(&core->envelope);
    const sea_msg_status_t status = {
        .of_sequence = of_sequence,
        .state = core->state,
        .cause = core->cause,
        .faults = core->faults,
        .decision_id = core->current.id,
        .queued_id = core->queued.id,
        .lease_until_us = sea_core_lease_until_us(core),
        .amplitude_limit_uA = core->effective.amplitude_uA,
        .electrode_area = core->effective.electrode_area,
        .pulses = counters->pulses,
        .slots_lapsed = counters->slots_lapsed,
        .slots_late = counters->slots_late,
        .slots_too_soon = counters->slots_too_soon,
        .frames = counters->frames,
        .frames_bad = counters->frames_bad,
        .frames_old_sequence = counters->frames_old_sequence,
        .frames_old_session = counters->frames_old_session,
        .frames_unknown = counters->frames_unknown,
        .frames_forged = counters->frames_forged,
        .orders_refused = counters->orders_refused,
        .overruns = counters->overruns,
        .slots_dose = counters->slots_dose,
        .decisions_late = counters->decisions_late,
        .toggles = sums.toggles,
        .set_point_uA = sea_envelope_set_uA(&core->envelope),
        .impedance_ohm = core->envelope.impedance_ohm,
        .dose_uW = (uint32_t)(sums.energy_aJ / 1000000u / ((uint64_t)SEA_WINDOW_BUCKETS * SEA_WINDOW_US)),
        .v_max_mV = core->effective.v_max_mV,
        .dose_limit_uW = core->effective.dose_uW,
        .toggles_limit = core->effective.toggles,
        .fallback_uA = core->config->fallback.amplitude_uA,
    };
    uint8_t payload[SEA_STATUS_SIZE];
    sea_pack_status(payload, &status);
    sea_send(core, SEA_STATUS, payload, sizeof payload);
}

void sea_send_nack(sea_core_t *core, uint32_t of_sequence, uint8_t of_type, const sea_verdict_t *why)
{
    const sea_msg_nack_t nack = {
        .of_sequence = of_sequence,
        .of_type = of_type,
        .code = why->code,
        .value = why->value,
        .low = why->low,
        .high = why->high,
    };
    uint8_t payload[SEA_NACK_SIZE];
    sea_pack_nack(payload, &nack);
    sea_send(core, SEA_NACK, payload, sizeof payload);
}

void sea_refuse(sea_core_t *core, const sea_frame_t *frame, const sea_verdict_t *why)
{
    core->counters.orders_refused++;
    sea_send_nack(core, frame->sequence, frame->type, why);
}

void sea_refuse_code(sea_core_t *core, const sea_frame_t *frame, uint8_t code, uint64_t value)
{
    sea_refuse(core, frame, &(sea_verdict_t){.code = code, .value = value});
}

void sea_accept(sea_core_t *core, const sea_frame_t *frame, uint8_t code, const sea_decision_t *decision)
{
    sea_msg_ack_t ack = {.of_sequence = frame->sequence, .of_type = frame->type, .code = code};
    if (decision != NULL) {
        ack.clamp = decision->clamp;
        ack.decision_id = decision->id;
        ack.start_us = decision->start_us;
        ack.amplitude_uA = decision->amplitude_uA;
        ack.width_us = decision->width_us;
        ack.lease_until_us = decision->lease_until_us;
    }
    uint8_t payload[SEA_ACK_SIZE];
    sea_pack_ack(payload, &ack);
    sea_send(core, SEA_ACK, payload, sizeof payload);
}
