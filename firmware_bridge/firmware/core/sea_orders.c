#include "sea_internal.h"

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

const sea_decision_t *sea_hold(sea_core_t *core, const sea_msg_set_stim_t *order, sea_verdict_t *why)
{
    sea_promote(core);
    if (SEA_NEXT[core->state][SEA_EVENT_ORDER] == SEA_REFUSED) {
        *why = (sea_verdict_t){.code = SEA_NACK_CODE_STATE, .value = core->state};
        return NULL;
    }
    if (order->sensing != 0) {
        *why = (sea_verdict_t){.code = SEA_NACK_CODE_SENSING, .value = order->sensing};
        core->faults |= SEA_FAULT_SENSING;
        if (sea_strike(&core->sensing_bad, SEA_SENSING_MAX)) {
            sea_degrade(core, SEA_FAULT_SENSING, SEA_CAUSE_SENSING);
        }
        return NULL;
    }
    const uint64_t start_us = order->start_us != 0 ? order->start_us : core->now_us;
    const sea_verdict_t verdict = sea_judge(order, core->effective);
    const sea_verdict_t timing = judge_timing(core, order, start_us);
    *why = verdict.code != 0 ? verdict : timing;
    if (why->code != 0) {
        return NULL;
    }
    sea_decision_t *place = core->current.id == 0 ? &core->current : &core->queued;
    *place = make_decision(order, &verdict, start_us);
    core->newest_id = order->decision_id;
    core->sensing_bad = 0;
    renew(core, &core->current);
    renew(core, &core->queued);
    (void)sea_event(core, SEA_EVENT_ORDER, SEA_CAUSE_ORDERED);
    return place;
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
        sea_accept(core, frame, SEA_ACK_CODE_ALREADY, known);
        return;
    }
    sea_verdict_t why;
    const sea_decision_t *place = sea_hold(core, &order, &why);
    if (place == NULL) {
        sea_refuse(core, frame, &why);
        return;
    }
    sea_accept(core, frame, SEA_ACK_CODE_DONE, place);
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
        sea_refuse_code(core, frame, SEA_NACK_CODE_STATE, core->state);
    } else if (decision == NULL) {
        sea_refuse_code(core, frame, SEA_NACK_CODE_DECISION, order.decision_id);
    } else {
        renew(core, decision);
        if (decision == &core->current) {
            renew(core, &core->queued);
        }
        sea_accept(core, frame, SEA_ACK_CODE_DONE, decision);
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
    sea_accept(core, frame, SEA_ACK_CODE_DONE, NULL);
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
        sea_on_hello(core, frame);
        return;
    case SEA_STOP:
        on_stop(core, frame);
        return;
    case SEA_TIME_SYNC:
    case SEA_ARM:
    case SEA_SET_STIM:
    case SEA_RENEW:
    case SEA_OBSERVE:
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
        sea_on_arm(core, frame);
        break;
    case SEA_SET_STIM:
        on_set_stim(core, frame);
        break;
    case SEA_RENEW:
        on_renew(core, frame);
        break;
    case SEA_OBSERVE:
        sea_on_observe(core, frame);
        break;
    case SEA_HEARTBEAT:
        sea_accept(core, frame, SEA_ACK_CODE_DONE, NULL);
        break;
    default:
        sea_send_status(core, frame->sequence);
        break;
    }
}
