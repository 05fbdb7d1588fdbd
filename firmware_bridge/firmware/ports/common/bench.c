#include "bench.h"

#include "image.h"

static bool send(bench_t *bench, uint8_t type, uint64_t time_us, const uint8_t *payload, size_t size)
{
    uint8_t out[SEA_FRAME_MAX];
    const sea_frame_t frame = {
        .version = SEA_PROTOCOL,
        .type = type,
        .sequence = ++bench->sequence,
        .time_us = time_us,
        .payload = payload,
        .size = size,
    };
    return bench->port->send(bench->port->ctx, out, sea_frame_encode(out, &frame));
}

static void send_at(bench_t *bench, uint32_t token)
{
    const sea_msg_at_t at = {
        .token = token,
        .now_us = bench->port->now_us(bench->port->ctx),
        .stepped = bench->stepped,
        .state = sea_core_state(bench->core),
        .grounded = bench->grounded,
        .lost = bench->lost,
    };
    uint8_t payload[SEA_AT_SIZE];
    sea_pack_at(payload, &at);
    (void)send(bench, SEA_AT, at.now_us, payload, sizeof payload);
}

void bench_init(bench_t *bench, const bench_port_t *port, sea_core_t *core)
{
    *bench = (bench_t){.port = port, .core = core, .grounded = true, .told_state = SEA_STATES,
                       .impedance_ohm = BENCH_IMPEDANCE_OHM, .v_max_mV = BENCH_V_MAX_MV};
    sea_rx_init(&bench->rx);
}

static void on_clock(bench_t *bench, const sea_msg_clock_t *clock)
{
    bench->waiting = false;
    if (bench->port->set_stepped != NULL) {
        bench->stepped = bench->port->set_stepped(bench->port->ctx, clock->stepped != 0);
    }
    send_at(bench, clock->token);
}

static void on_advance(bench_t *bench, const sea_msg_advance_t *advance)
{
    if (bench->stepped) {
        bench->port->step(bench->port->ctx, advance->to_us);
        send_at(bench, advance->token);
        return;
    }
    bench->waiting = true;
    bench->waiting_token = advance->token;
    bench->waiting_us = advance->to_us;
}

/* A bit of the policy's constants (without a policy: of another one), or of what the core remembers: its limit. */
static void flip(bench_t *bench, bool ram)
{
    const unsigned bit = 2;
    if (ram) {
        uint8_t *const byte = (uint8_t *)&bench->core->effective.amplitude_uA + 1;
        *byte = (uint8_t)(*byte ^ (1u << bit));
    } else {
        const sea_policy_t *policy = bench->core->config->policy;
        bench->port->flip(bench->port->ctx, policy != NULL ? (const void *)&policy->q_centre : image_mark(), bit);
    }
}

static void on_electrode(bench_t *bench, const sea_msg_electrode_t *electrode)
{
    if (electrode->fault == SEA_ELECTRODE_FAULT_HANG && bench->port->hang != NULL) {
        bench->port->hang(bench->port->ctx, electrode->residual_pC != 0);
    }
    if (electrode->fault == SEA_ELECTRODE_FAULT_MEMORY && bench->port->flip != NULL) {
        flip(bench, electrode->residual_pC != 0);
    }
    if (electrode->fault == SEA_ELECTRODE_FAULT_OVERRUN) {
        sea_core_overrun(bench->core);
        bench_trace(bench);
    } else {
        bench->fault = electrode->fault;
        bench->fault_residual_pC = electrode->residual_pC;
        bench->impedance_ohm = electrode->impedance_ohm != 0 ? electrode->impedance_ohm : BENCH_IMPEDANCE_OHM;
        bench->v_max_mV = electrode->v_max_mV != 0 ? electrode->v_max_mV : BENCH_V_MAX_MV;
    }
    send_at(bench, electrode->token);
}

static void take(bench_t *bench, const sea_frame_t *frame)
{
    sea_msg_clock_t clock;
    sea_msg_advance_t advance;
    sea_msg_button_t button;
    sea_msg_electrode_t electrode;
    if (frame->type == SEA_CLOCK && sea_unpack_clock(&clock, frame->payload, frame->size)) {
        on_clock(bench, &clock);
    } else if (frame->type == SEA_ADVANCE && sea_unpack_advance(&advance, frame->payload, frame->size)) {
        on_advance(bench, &advance);
    } else if (frame->type == SEA_BUTTON && sea_unpack_button(&button, frame->payload, frame->size)) {
        (void)sea_core_person(bench->core);
        bench_trace(bench);
        send_at(bench, button.token);
    } else if (frame->type == SEA_ELECTRODE && sea_unpack_electrode(&electrode, frame->payload, frame->size)) {
        on_electrode(bench, &electrode);
    }
}

void bench_feed(bench_t *bench, const uint8_t *bytes, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        sea_frame_t frame;
        if (sea_rx_push(&bench->rx, bytes[i], &frame) == SEA_RX_FRAME) {
            take(bench, &frame);
        }
    }
}

void bench_poll(bench_t *bench)
{
    if (bench->waiting && bench->port->now_us(bench->port->ctx) >= bench->waiting_us) {
        bench->waiting = false;
        send_at(bench, bench->waiting_token);
    }
}

void bench_released(bench_t *bench)
{
    sea_rx_init(&bench->rx);
    bench->waiting = false;
    bench->lost = 0;
}

/* The voltage that a current of so many uA needs, as far as the output can give it. */
static uint32_t peak_uV(const bench_t *bench, int32_t amplitude_uA)
{
    const uint64_t highest = bench->v_max_mV * UINT64_C(1000);
    uint64_t wanted = (uint64_t)amplitude_uA * bench->impedance_ohm;
    if (bench->fault == SEA_ELECTRODE_FAULT_SHORT) {
        wanted = (uint64_t)amplitude_uA * BENCH_SHORT_OHM;
    } else if (bench->fault == SEA_ELECTRODE_FAULT_OPEN) {
        wanted = highest;
    }
    return (uint32_t)(wanted < highest ? wanted : highest);
}

bool bench_stimulate(void *ctx, const sea_pulse_t *pulse, sea_given_t *given)
{
    bench_t *bench = ctx;
    if (bench->fault == SEA_ELECTRODE_FAULT_DEAD) {
        return false;
    }
    /* what the electrode measures, not what the core believes */
    const int32_t residual = pulse->amplitude_uA[0] * pulse->width_us[0] + pulse->amplitude_uA[1] * pulse->width_us[1] +
                             (bench->fault == SEA_ELECTRODE_FAULT_UNBALANCED ? bench->fault_residual_pC : 0);
    const sea_msg_pulse_t message = {
        .amplitude_1_uA = pulse->amplitude_uA[0],
        .width_1_us = pulse->width_us[0],
        .amplitude_2_uA = pulse->amplitude_uA[1],
        .width_2_us = pulse->width_us[1],
        .residual_pC = residual,
        .peak_uV = peak_uV(bench, -pulse->amplitude_uA[0]),
    };
    uint8_t payload[SEA_PULSE_SIZE];
    sea_pack_pulse(payload, &message);
    if (!send(bench, SEA_PULSE, pulse->start_us, payload, sizeof payload)) {
        bench->lost++;
    }
    *given = (sea_given_t){.residual_pC = residual, .peak_uV = message.peak_uV, .measured = true};
    return true;
}

void bench_ground(void *ctx, bool grounded)
{
    ((bench_t *)ctx)->grounded = grounded;
}

void bench_trace(bench_t *bench)
{
    const sea_core_t *core = bench->core;
    const uint64_t lease_us = sea_core_lease_until_us(core);
    if (core->state == bench->told_state && lease_us == bench->told_lease_us) {
        return;
    }
    bench->told_state = core->state;
    bench->told_lease_us = lease_us;
    const sea_msg_status_t status = {
        .state = core->state,
        .cause = core->cause,
        .faults = core->faults,
        .decision_id = core->current.id,
        .queued_id = core->queued.id,
        .lease_until_us = lease_us,
        .amplitude_limit_uA = core->effective.amplitude_uA,
        .electrode_area = core->effective.electrode_area,
        .pulses = core->counters.pulses,
        .set_point_uA = sea_envelope_set_uA(&core->envelope),
    };
    uint8_t payload[SEA_STATUS_SIZE];
    sea_pack_status(payload, &status);
    (void)send(bench, SEA_STATUS, core->now_us, payload, sizeof payload);
}
