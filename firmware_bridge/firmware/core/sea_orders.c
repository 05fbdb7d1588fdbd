#include "sea_internal.h"

void sea_send(sea_core_t *core, uint8_t type, const uint8_t *payload, size_t size)
{
    uint8_t out[SEA_FRAME_MAX];
    const sea_frame_t frame = {
        .version = SEA_PROTOCOL,
        .type = type,
        .sequence = ++core->tx_sequence,
        .session = core->session,
        .time_us = core->now_us,
        .payload = payload,
        .size = size,
    };
    core->port->tx(core->port->ctx, out, sea_frame_encode(out, &frame));
}

void sea_send_status(sea_core_t *core, uint32_t of_sequence)
{
    const sea_counters_t *counters = &core->counters;
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
        .orders_refused = counters->orders_refused,
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

static void refuse(sea_core_t *core, const sea_frame_t *frame, const sea_verdict_t *why)
{
    core->counters.orders_refused++;
    sea_send_nack(core, frame->sequence, frame->type, why);
}

static void refuse_code(sea_core_t *core, const sea_frame_t *frame, uint8_t code, uint64_t value)
{
    refuse(core, frame, &(sea_verdict_t){.code = code, .value = value});
}

static void accept(sea_core_t *core, const sea_frame_t *frame, uint8_t code, const sea_decision_t *decision)
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

static void send_hello_ack(sea_core_t *core, const sea_msg_hello_t *hello, uint16_t refusal)
{
    static const uint8_t schema[32] = SEA_SCHEMA_HASH;
    static const uint8_t limits[32] = SEA_LIMITS_HASH;
    sea_msg_hello_ack_t ack = {
        .protocol_min = SEA_PROTOCOL,
        .protocol_max = SEA_PROTOCOL,
        .refusal = refusal,
        .state = core->state,
        .cause = core->cause,
    };
    sea_copy(ack.host_nonce, hello->host_nonce, sizeof ack.host_nonce);
    sea_copy(ack.board_nonce, core->board_nonce, sizeof ack.board_nonce);
    sea_copy(ack.firmware_build, core->config->firmware_build, sizeof ack.firmware_build);
    sea_copy(ack.schema_hash, schema, sizeof schema);
    sea_copy(ack.limits_hash, limits, sizeof limits);
    sea_copy(ack.model_hash, core->config->model_hash, sizeof ack.model_hash);
    uint8_t payload[SEA_HELLO_ACK_SIZE];
    sea_pack_hello_ack(payload, &ack);
    sea_send(core, SEA_HELLO_ACK, payload, sizeof payload);
}

static uint16_t find_refusal(const sea_core_t *core, const sea_msg_hello_t *hello)
{
    static const uint8_t none[32] = {0};
    static const uint8_t schema[32] = SEA_SCHEMA_HASH;
    static const uint8_t limits[32] = SEA_LIMITS_HASH;
    const uint8_t *model = core->config->model_hash;
    unsigned refusal = 0;
    if (hello->protocol_min > SEA_PROTOCOL || hello->protocol_max < SEA_PROTOCOL) {
        refusal |= SEA_REFUSAL_PROTOCOL;
    }
    if (!sea_equal(hello->schema_hash, schema, sizeof schema)) {
        refusal |= SEA_REFUSAL_SCHEMA;
    }
    if (!sea_equal(hello->limits_hash, limits, sizeof limits)) {
        refusal |= SEA_REFUSAL_LIMITS;
    }
    if (!sea_equal(model, none, sizeof none) && !sea_equal(hello->model_hash, model, sizeof none)) {
        refusal |= SEA_REFUSAL_MODEL;
    }
    if (core->state == SEA_STATE_SAFE_OFF) {
        refusal |= SEA_REFUSAL_SAFE_OFF;
    }
    return (uint16_t)refusal;
}

static void open_session(sea_core_t *core, const sea_frame_t *frame, const sea_msg_hello_t *hello)
{
    for (size_t i = SEA_REMEMBERED_NONCES - 1; i > 0; i--) {
        sea_copy(core->host_nonces[i], core->host_nonces[i - 1], sizeof core->host_nonces[i]);
    }
    sea_copy(core->host_nonces[0], hello->host_nonce, sizeof core->host_nonces[0]);
    core->sessions++;
    core->session = (core->config->boot_count << 16) | core->sessions;
    core->rx_sequence = frame->sequence;
    core->newest_id = 0;
    /* Unique for each session of this board; not secret until authentication exists. */
    sea_put_u32(core->board_nonce, core->config->boot_count);
    sea_put_u32(core->board_nonce + 4, core->session);
    sea_put_u64(core->board_nonce + 8, core->now_us);
}

static void on_hello(sea_core_t *core, const sea_frame_t *frame)
{
    sea_msg_hello_t hello;
    if (!sea_unpack_hello(&hello, frame->payload, frame->size)) {
        core->counters.frames_unknown++;
        return;
    }
    for (size_t i = 0; i < SEA_REMEMBERED_NONCES && i < core->sessions; i++) {
        if (!sea_equal(core->host_nonces[i], hello.host_nonce, sizeof hello.host_nonce)) {
            continue;
        }
        if (i == 0) {
            send_hello_ack(core, &hello, core->refusal); /* asked again: answered again, nothing changes */
        } else {
            core->counters.frames_old_session++;
        }
        return;
    }
    const uint16_t refusal = find_refusal(core, &hello);
    if (core->sessions == UINT16_MAX || !sea_event(core, SEA_EVENT_HELLO, SEA_CAUSE_HANDSHAKE)) {
        send_hello_ack(core, &hello, (uint16_t)(refusal | SEA_REFUSAL_BUSY));
        return;
    }
    open_session(core, frame, &hello);
    core->refusal = refusal;
    core->armable = refusal == 0;
    send_hello_ack(core, &hello, refusal);
}

static void on_arm(sea_core_t *core, const sea_frame_t *frame)
{
    sea_msg_arm_t arm;
    if (!sea_unpack_arm(&arm, frame->payload, frame->size)) {
        core->counters.frames_unknown++;
    } else if (core->refusal != 0) {
        refuse_code(core, frame, SEA_NACK_CODE_REFUSED, core->refusal);
    } else if (!sea_equal(arm.board_nonce, core->board_nonce, sizeof arm.board_nonce)) {
        refuse_code(core, frame, SEA_NACK_CODE_NONCE, 0);
    } else if (core->state == SEA_STATE_ARMED) {
        accept(core, frame, SEA_ACK_CODE_ALREADY, NULL);
    } else if (!core->armable) {
        refuse_code(core, frame, SEA_NACK_CODE_NONCE, 0);
    } else if (sea_event(core, SEA_EVENT_ARM, SEA_CAUSE_ARMED_BY_HOST)) {
        accept(core, frame, SEA_ACK_CODE_DONE, NULL);
    } else {
        refuse_code(core, frame, SEA_NACK_CODE_STATE, core->state);
    }
}

/* Every order and renewal shows that the loop which decides is alive. */
static void renew(const sea_core_t *core, sea_decision_t *decision)
{
    if (decision->id != 0) {
        decision->lease_until_us = core->now_us + decision->lease_us;
    }
}

static sea_decision_t *held(sea_core_t *core, uint32_t id)
{
    if (id != 0 && core->current.id == id) {
        return &core->current;
    }
    return id != 0 && core->queued.id == id ? &core->queued : NULL;
}

/* What cannot be told from the order alone: decision id, start, queue. */
static sea_verdict_t judge_timing(const sea_core_t *core, const sea_msg_set_stim_t *order, uint64_t start_us)
{
    const uint64_t now = core->now_us;
    const uint64_t length = (uint64_t)order->slots * order->slot_period_us;
    const uint64_t oldest = now < length ? 0 : now - length + 1u;
    sea_verdict_t verdict = {0};
    if (order->decision_id <= core->newest_id) {
        verdict.code = SEA_NACK_CODE_DECISION;
        verdict.value = order->decision_id;
        verdict.low = (uint64_t)core->newest_id + 1u;
        verdict.high = UINT32_MAX;
    } else if (start_us < oldest || start_us > now + SEA_START_AHEAD_MAX_US) {
        verdict.code = SEA_NACK_CODE_START;
        verdict.value = start_us;
        verdict.low = oldest;
        verdict.high = now + SEA_START_AHEAD_MAX_US;
    } else if (core->queued.id != 0) {
        verdict.code = SEA_NACK_CODE_QUEUE_FULL;
        verdict.value = core->queued.id;
    }
    return verdict;
}

static sea_decision_t make_decision(const sea_msg_set_stim_t *order, const sea_verdict_t *verdict, uint64_t start_us)
{
    sea_decision_t decision = {
        .id = order->decision_id,
        .start_us = start_us,
        .period_us = order->slot_period_us,
        .slots = order->slots,
        .amplitude_uA = verdict->amplitude_uA,
        .width_us = order->width_us,
        .clamp = verdict->clamp,
        .lease_us = (uint32_t)order->lease_ms * 1000u,
    };
    sea_copy(decision.mask, order->mask, sizeof decision.mask);
    return decision;
}

static void on_set_stim(sea_core_t *core, const sea_frame_t *frame)
{
    sea_msg_set_stim_t order;
    if (!sea_unpack_set_stim(&order, frame->payload, frame->size)) {
        core->counters.frames_unknown++;
        return;
    }
    sea_promote(core);
    const sea_decision_t *known = held(core, order.decision_id);
    if (known != NULL) {
        accept(core, frame, SEA_ACK_CODE_ALREADY, known);
        return;
    }
    if (SEA_NEXT[core->state][SEA_EVENT_ORDER] == SEA_REFUSED) {
        refuse_code(core, frame, SEA_NACK_CODE_STATE, core->state);
        return;
    }
    const uint64_t start_us = order.start_us != 0 ? order.start_us : core->now_us;
    const sea_verdict_t verdict = sea_judge(&order, core->effective);
    const sea_verdict_t timing = judge_timing(core, &order, start_us);
    if (verdict.code != 0 || timing.code != 0) {
        refuse(core, frame, verdict.code != 0 ? &verdict : &timing);
        return;
    }
    sea_decision_t *place = core->current.id == 0 ? &core->current : &core->queued;
    *place = make_decision(&order, &verdict, start_us);
    core->newest_id = order.decision_id;
    renew(core, &core->current);
    renew(core, &core->queued);
    (void)sea_event(core, SEA_EVENT_ORDER, SEA_CAUSE_ORDERED);
    accept(core, frame, SEA_ACK_CODE_DONE, place);
    sea_promote(core);
}

static void on_renew(sea_core_t *core, const sea_frame_t *frame)
{
    sea_msg_renew_t order;
    if (!sea_unpack_renew(&order, frame->payload, frame->size)) {
        core->counters.frames_unknown++;
        return;
    }
    sea_promote(core);
    sea_decision_t *decision = held(core, order.decision_id);
    if (core->state != SEA_STATE_CLOSED_LOOP) {
        refuse_code(core, frame, SEA_NACK_CODE_STATE, core->state);
    } else if (decision == NULL) {
        refuse_code(core, frame, SEA_NACK_CODE_DECISION, order.decision_id);
    } else {
        renew(core, decision);
        if (decision == &core->current) {
            renew(core, &core->queued);
        }
        accept(core, frame, SEA_ACK_CODE_DONE, decision);
    }
}

static void on_time_sync(sea_core_t *core, const sea_frame_t *frame)
{
    sea_msg_time_sync_t sync;
    if (!sea_unpack_time_sync(&sync, frame->payload, frame->size)) {
        core->counters.frames_unknown++;
        return;
    }
    sync.of_sequence = frame->sequence;
    sync.t2_board_us = core->now_us;
    sync.t3_board_us = core->now_us;
    uint8_t payload[SEA_TIME_SYNC_SIZE];
    sea_pack_time_sync(payload, &sync);
    sea_send(core, SEA_TIME_SYNC, payload, sizeof payload);
}

static void on_stop(sea_core_t *core, const sea_frame_t *frame)
{
    if (frame->size != SEA_STOP_SIZE) {
        core->counters.frames_unknown++;
        return;
    }
    (void)sea_event(core, SEA_EVENT_STOP, SEA_CAUSE_STOPPED); /* no state refuses it */
    accept(core, frame, SEA_ACK_CODE_DONE, NULL);
}

/* Frames of a session: only of this one, and only newer than the newest. */
static bool is_fresh(sea_core_t *core, const sea_frame_t *frame)
{
    if (core->session == 0 || frame->session != core->session) {
        core->counters.frames_old_session++;
        return false;
    }
    if (frame->sequence <= core->rx_sequence) {
        core->counters.frames_old_sequence++;
        return false;
    }
    core->rx_sequence = frame->sequence;
    return true;
}

void sea_take(sea_core_t *core, const sea_frame_t *frame)
{
    switch (frame->type) {
    case SEA_HELLO:
        on_hello(core, frame);
        return;
    case SEA_STOP:
        on_stop(core, frame);
        return;
    case SEA_TIME_SYNC:
    case SEA_ARM:
    case SEA_SET_STIM:
    case SEA_RENEW:
    case SEA_HEARTBEAT:
    case SEA_STATUS_REQUEST:
        break;
    default: /* unknown, or the board's own frames come back as an echo */
        core->counters.frames_unknown++;
        return;
    }
    if (!is_fresh(core, frame)) {
        return;
    }
    switch (frame->type) {
    case SEA_TIME_SYNC:
        on_time_sync(core, frame);
        break;
    case SEA_ARM:
        on_arm(core, frame);
        break;
    case SEA_SET_STIM:
        on_set_stim(core, frame);
        break;
    case SEA_RENEW:
        on_renew(core, frame);
        break;
    case SEA_HEARTBEAT:
        accept(core, frame, SEA_ACK_CODE_DONE, NULL);
        break;
    default:
        sea_send_status(core, frame->sequence);
        break;
    }
}
