#include "sea_internal.h"

#define FULL (SEA_OBSERVE_SIZE - SEA_OBSERVE_FIXED) /* bytes of a full fragment */
#define LOGITS_A_FRAME ((SEA_LOGITS_SIZE - SEA_LOGITS_FIXED) / 4u)
#define MARGINS_MAX ((SEA_DECISION_SIZE - SEA_DECISION_FIXED) / 2u)

_Static_assert((SEA_OBSERVE_HEAD_SIZE + SEA_OBSERVATION_MAX + FULL - 1u) / FULL <= 32u, "a bit for each fragment");

static uint32_t blob_size(const sea_core_t *core)
{
    return SEA_OBSERVE_HEAD_SIZE + (uint32_t)core->config->policy->n_obs;
}

void sea_forget_observation(sea_core_t *core)
{
    sea_observation_t *observation = &core->observation;
    observation->id = 0;
    core->answer.id = 0;
    if (observation->taken) {
        observation->dropped = true; /* its bytes are still being read */
    } else {
        observation->whole = false;
    }
}

static void send_decision(sea_core_t *core, uint32_t of_sequence)
{
    sea_answer_t *answer = &core->answer;
    sea_msg_decision_t decision;
    if (!sea_unpack_decision(&decision, answer->decision, answer->size)) {
        return;
    }
    decision.of_sequence = of_sequence;
    (void)sea_pack_decision(answer->decision, &decision);
    sea_send(core, SEA_DECISION, answer->decision, answer->size);
    const uint32_t count = 2u * (uint32_t)core->config->policy->slots;
    const uint32_t fragments = (count + LOGITS_A_FRAME - 1u) / LOGITS_A_FRAME;
    for (uint32_t fragment = 0; fragment < fragments; fragment++) {
        const uint32_t first = fragment * LOGITS_A_FRAME;
        const uint32_t here = count - first < LOGITS_A_FRAME ? count - first : LOGITS_A_FRAME;
        uint8_t payload[SEA_LOGITS_SIZE];
        for (uint32_t i = 0; i < here; i++) {
            sea_put_u32(payload + SEA_LOGITS_FIXED + 4u * i, (uint32_t)answer->logits[first + i]);
        }
        const sea_msg_logits_t logits = {
            .of_sequence = of_sequence,
            .decision_id = answer->id,
            .fragment = (uint8_t)fragment,
            .fragments = (uint8_t)fragments,
            .values = payload + SEA_LOGITS_FIXED,
            .values_size = 4u * here,
        };
        sea_send(core, SEA_LOGITS, payload, sea_pack_logits(payload, &logits));
    }
}

/* Whether a fragment is one of this policy's observation: how many there are, which one, how long. */
static sea_verdict_t judge_shape(const sea_core_t *core, const sea_msg_observe_t *part)
{
    const uint32_t size = blob_size(core);
    const uint32_t fragments = (size + FULL - 1u) / FULL;
    sea_verdict_t verdict = {0};
    if (part->fragments != fragments || part->fragment >= fragments) {
        verdict = (sea_verdict_t){.code = SEA_NACK_CODE_OBSERVATION, .value = part->fragments, .low = fragments,
                                  .high = fragments};
    } else {
        const uint32_t wanted = part->fragment + 1u < fragments ? FULL : size - (fragments - 1u) * FULL;
        if (part->data_size != wanted) {
            verdict = (sea_verdict_t){.code = SEA_NACK_CODE_OBSERVATION, .value = part->data_size, .low = wanted,
                                      .high = wanted};
        }
    }
    return verdict;
}

/* Whether there may be a fragment of this decision now. */
static sea_verdict_t judge_turn(const sea_core_t *core, const sea_msg_observe_t *part)
{
    const sea_observation_t *observation = &core->observation;
    uint32_t newest = core->answer.id;
    if (core->newest_id > newest && !core->shadow) { /* in shadow the two who decide count each for itself */
        newest = core->newest_id;
    }
    if (SEA_NEXT[core->state][SEA_EVENT_ORDER] == SEA_REFUSED) {
        return (sea_verdict_t){.code = SEA_NACK_CODE_STATE, .value = core->state};
    }
    if (observation->whole) {
        return (sea_verdict_t){.code = SEA_NACK_CODE_BUSY, .value = observation->id};
    }
    if (observation->id > newest) {
        newest = observation->id - 1u; /* the one being assembled may go on */
    }
    if (part->decision_id <= newest) {
        return (sea_verdict_t){.code = SEA_NACK_CODE_DECISION, .value = part->decision_id,
                               .low = (uint64_t)newest + 1u, .high = UINT32_MAX};
    }
    return judge_shape(core, part);
}

/* Puts a fragment into its place; false: it is of another observation of the same name. */
static bool place(sea_core_t *core, const sea_msg_observe_t *part)
{
    sea_observation_t *observation = &core->observation;
    const bool stale = core->now_us - observation->since_us > SEA_OBSERVE_MAX_US;
    if (observation->id != part->decision_id || stale) {
        observation->id = part->decision_id;
        observation->crc = part->crc;
        observation->have = 0;
        observation->since_us = core->now_us;
    }
    if (observation->crc != part->crc) {
        return false;
    }
    const uint32_t bit = UINT32_C(1) << part->fragment;
    if ((observation->have & bit) == 0) {
        observation->have |= bit;
        sea_copy(observation->blob + FULL * part->fragment, part->data, part->data_size);
    }
    return true;
}

/* All of it, and as the host summed it up. */
static bool is_as_sent(const sea_core_t *core)
{
    const sea_observation_t *observation = &core->observation;
    return sea_crc32(0, observation->blob, blob_size(core)) == observation->crc;
}

/* A head that contradicts its values was not made from them. */
static bool head_fits(const sea_core_t *core, const sea_msg_observe_head_t *head)
{
    const uint16_t count = core->config->policy->n_obs;
    const int8_t *values = (const int8_t *)core->observation.blob + SEA_OBSERVE_HEAD_SIZE;
    int8_t low = values[0];
    int8_t high = values[0];
    for (uint16_t i = 1; i < count; i++) {
        low = values[i] < low ? values[i] : low;
        high = values[i] > high ? values[i] : high;
    }
    return head->minimum == low && head->maximum == high && (uint32_t)head->valid + head->blanked == count;
}

void sea_on_observe(sea_core_t *core, const sea_frame_t *frame)
{
    sea_observation_t *observation = &core->observation;
    sea_msg_observe_t part;
    sea_msg_observe_head_t head;
    if (!sea_unpack_observe(&part, frame->payload, frame->size)) {
        core->counters.frames_unknown++;
        return;
    }
    if (core->config->policy == NULL) {
        sea_refuse_code(core, frame, SEA_NACK_CODE_NO_POLICY, 0);
        return;
    }
    if (core->answer.id != 0 && part.decision_id == core->answer.id && part.crc == core->answer.crc) {
        if (part.fragment + 1u == part.fragments) { /* the answer was lost: it is given again, nothing changes */
            send_decision(core, frame->sequence);
        }
        return;
    }
    if (observation->whole && part.decision_id == observation->id && part.crc == observation->crc) {
        return; /* sent again while it is decided on */
    }
    const sea_verdict_t turn = judge_turn(core, &part);
    if (turn.code != 0) {
        sea_refuse(core, frame, &turn);
        return;
    }
    if (!place(core, &part)) {
        sea_refuse_code(core, frame, SEA_NACK_CODE_OBSERVATION_CRC, part.crc);
        return;
    }
    if (observation->have != (uint32_t)((UINT64_C(1) << part.fragments) - 1u)) {
        return;
    }
    uint8_t code = 0;
    if (!is_as_sent(core)) {
        code = SEA_NACK_CODE_OBSERVATION_CRC;
    } else if (!sea_unpack_observe_head(&head, observation->blob, SEA_OBSERVE_HEAD_SIZE) || !head_fits(core, &head)) {
        code = SEA_NACK_CODE_OBSERVATION;
    }
    if (code != 0) {
        observation->id = 0;
        sea_refuse_code(core, frame, code, 0);
        return;
    }
    observation->whole = true;
    observation->whole_us = core->now_us;
    observation->of_sequence = frame->sequence;
}

bool sea_core_to_decide(sea_core_t *core, const int8_t **values)
{
    if (core == NULL || values == NULL || !core->observation.whole) {
        return false;
    }
    sea_open(core, core->now_us);
    if (core->observation.fresh) {
        core->observation.fresh = false;
        core->config->policy->reset();
    }
    core->observation.taken = true;
    *values = (const int8_t *)core->observation.blob + SEA_OBSERVE_HEAD_SIZE;
    sea_seal(core);
    return true;
}

int32_t *sea_core_logits(sea_core_t *core)
{
    return core->answer.logits;
}

/* A float format saturates what it cannot say; SEA_LOGIT_NOT_FINITE is one of these two. */
static bool is_number(int32_t logit)
{
    return logit != INT32_MIN && logit != INT32_MAX;
}

/* Logits to a mask (a tie gives no pulse); false: those of a slot are not finite, or saturated. */
static bool read_logits(const sea_policy_t *policy, const int32_t *logits, uint8_t mask[32], uint16_t *slot)
{
    for (*slot = 0; *slot < policy->slots; (*slot)++) {
        const int32_t *pair = logits + 2u * *slot;
        if (!is_number(pair[0]) || !is_number(pair[1])) {
            for (size_t i = 0; i < 32; i++) {
                mask[i] = 0;
            }
            return false;
        }
        if (pair[1] > pair[0]) {
            mask[*slot / 8u] = (uint8_t)(mask[*slot / 8u] | (1u << (*slot % 8u)));
        }
    }
    return true;
}

static void write_answer(sea_core_t *core, const sea_msg_set_stim_t *order, const sea_decision_t *held,
                         const sea_verdict_t *why)
{
    sea_answer_t *answer = &core->answer;
    const sea_policy_t *policy = core->config->policy;
    const size_t margins = policy->slots < MARGINS_MAX ? policy->slots : MARGINS_MAX;
    uint8_t *tail = answer->decision + SEA_DECISION_FIXED;
    for (size_t i = 0; i < margins; i++) {
        sea_put_u16(tail + 2u * i, (uint16_t)sea_policy_margin(policy, answer->logits + 2u * i));
    }
    sea_msg_decision_t decision = {
        .decision_id = order->decision_id,
        .code = why->code,
        .value = why->value,
        .low = why->low,
        .high = why->high,
        .whole_us = core->observation.whole_us,
        .decided_us = core->now_us,
        .slot_period_us = order->slot_period_us,
        .slots = order->slots,
        .margins = tail,
        .margins_size = 2u * margins,
    };
    sea_copy(decision.mask, order->mask, sizeof decision.mask);
    if (core->shadow) {
        decision.clamp = SEA_CLAMP_SHADOW;
    }
    if (held != NULL) {
        decision.clamp = held->clamp;
        decision.start_us = held->start_us;
        decision.lease_until_us = held->lease_until_us;
        decision.amplitude_uA = held->amplitude_uA;
        decision.width_us = held->width_us;
    }
    answer->id = order->decision_id;
    answer->crc = core->observation.crc;
    answer->size = sea_pack_decision(answer->decision, &decision);
}

/* Something was wrong with what the policy said: in a row it leads to FALLBACK, where the policy drives. */
static void strike(sea_core_t *core, uint8_t *in_a_row, uint32_t limit, uint32_t bit, uint8_t cause)
{
    core->faults |= bit;
    if (!core->shadow && sea_strike(in_a_row, limit)) {
        sea_degrade(core, bit, cause);
    }
}

/* The observation was there in time, and the policy answered when its first slot could no more be given, or after the
 * lease that it would have had. */
static bool is_late(const sea_core_t *core, const sea_msg_set_stim_t *order)
{
    const uint64_t whole_us = core->observation.whole_us;
    const uint64_t last_us = order->start_us + order->slot_period_us / 2u;
    return core->now_us - whole_us > (uint64_t)order->lease_ms * 1000u ||
           (order->start_us != 0 && whole_us <= last_us && core->now_us > last_us);
}

/* Judges an answer; null: nothing of it is applied (why; code 0: only because the session is one in shadow). */
static const sea_decision_t *judge_answer(sea_core_t *core, const int32_t *logits, sea_msg_set_stim_t *order,
                                          sea_verdict_t *why)
{
    const sea_decision_t *held = NULL;
    uint16_t slot;
    if (!read_logits(core->config->policy, logits, order->mask, &slot)) {
        *why = (sea_verdict_t){.code = SEA_NACK_CODE_NOT_FINITE, .value = slot};
        strike(core, &core->not_finite, SEA_NOT_FINITE_MAX, SEA_FAULT_NOT_FINITE, SEA_CAUSE_NOT_FINITE);
    } else if (is_late(core, order)) {
        *why = (sea_verdict_t){.code = SEA_NACK_CODE_INFERENCE, .value = core->now_us - core->observation.whole_us};
        core->counters.decisions_late++;
        strike(core, &core->late, SEA_INFERENCE_MAX, SEA_FAULT_INFERENCE, SEA_CAUSE_INFERENCE);
    } else if (core->shadow) {
        *why = (sea_verdict_t){.code = order->sensing != 0 ? SEA_NACK_CODE_SENSING : 0u, .value = order->sensing};
    } else {
        core->not_finite = 0;
        core->late = 0;
        held = sea_hold(core, order, why);
    }
    return held;
}

sea_status_t sea_core_decided(sea_core_t *core, const int32_t *logits, uint64_t now_us)
{
    if (core == NULL || logits == NULL) {
        return SEA_ERR_ARGUMENT;
    }
    sea_observation_t *observation = &core->observation;
    sea_open(core, now_us);
    const sea_status_t status = sea_arrive(core, now_us);
    if (observation->taken && !observation->dropped && !is_as_sent(core)) { /* it has changed meanwhile */
        sea_corrupted(core);
    }
    const bool dropped = observation->dropped;
    if (!observation->taken || dropped) {
        observation->whole = observation->whole && !dropped;
        observation->taken = false;
        observation->dropped = false;
        sea_seal(core);
        return SEA_ERR_STATE;
    }
    const sea_policy_t *policy = core->config->policy;
    sea_msg_observe_head_t head;
    (void)sea_unpack_observe_head(&head, observation->blob, SEA_OBSERVE_HEAD_SIZE);
    sea_msg_set_stim_t order = {
        .decision_id = observation->id,
        .start_us = head.start_us,
        .slot_period_us = policy->slot_period_us,
        .slots = policy->slots,
        .amplitude_uA = policy->amplitude_uA,
        .width_us = policy->width_us,
        .lease_ms = head.lease_ms,
        .sensing = sea_sensing_judge(observation->blob, observation->seen ? observation->before : NULL),
    };
    sea_copy(observation->before, observation->blob, sizeof observation->before);
    observation->seen = true;
    sea_verdict_t why = {0};
    const sea_decision_t *held = judge_answer(core, logits, &order, &why);
    for (size_t i = 0; logits != core->answer.logits && i < 2u * (size_t)policy->slots; i++) {
        core->answer.logits[i] = logits[i];
    }
    if (why.code != 0) {
        core->counters.orders_refused++;
    }
    write_answer(core, &order, held, &why);
    observation->whole = false;
    observation->taken = false;
    observation->id = 0;
    send_decision(core, observation->of_sequence);
    sea_promote(core);
    sea_seal(core);
    return status;
}
