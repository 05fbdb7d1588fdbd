#include "sea_internal.h"

static void send_hello_ack(sea_core_t *core, const sea_msg_hello_t *hello, uint16_t refusal)
{
    static const uint8_t schema[32] = SEA_SCHEMA_HASH;
    static const uint8_t limits[32] = SEA_LIMITS_HASH;
    sea_msg_hello_ack_t ack = {
        .protocol_min = SEA_PROTOCOL,
        .protocol_max = SEA_PROTOCOL,
        .features = (core->shadow ? SEA_FEATURE_SHADOW : 0u) |
                    (core->config->policy != NULL ? SEA_FEATURE_DECIDES : 0u) |
                    (core->device_key != NULL ? SEA_FEATURE_KEYED : 0u),
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
    if (core->device_key == NULL && !core->config->simulated_output) {
        refusal |= SEA_REFUSAL_KEY;
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
    core->shadow = (hello->features & SEA_FEATURE_SHADOW) != 0;
    sea_copy(core->model, hello->model_hash, sizeof core->model);
    sea_forget_observation(core);
    core->tx_sequence = 0; /* a sequence is used once under a session's key */
    if (core->device_key != NULL) {
        sea_auth_nonce(core->device_key, core->config->boot_count, core->session, core->board_nonce);
    } else { /* unique for each session of this board */
        sea_put_u32(core->board_nonce, core->config->boot_count);
        sea_put_u32(core->board_nonce + 4, core->session);
        sea_put_u64(core->board_nonce + 8, core->now_us);
    }
    sea_auth_open(&core->auth, core->device_key, core->host_nonces[0], core->board_nonce);
}

void sea_on_hello(sea_core_t *core, const sea_frame_t *frame)
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

/* Only a board with a key asks: where a policy drives, for the tag of its release by whoever holds that key. What is
 * released are the INT8 bits; another format of the same model decides otherwise. */
static bool is_released(const sea_core_t *core, const sea_msg_arm_t *arm)
{
    static const uint8_t none[32] = {0};
    const sea_policy_t *own = core->config->policy;
    const bool drives = !core->shadow && (own != NULL || !sea_equal(core->model, none, sizeof none));
    if (core->device_key == NULL || !drives) {
        return true;
    }
    return (own == NULL || own->format == SEA_POLICY_INT8) &&
           sea_auth_is_released(core->device_key, core->model, arm->verdict_hash, arm->release_tag);
}

void sea_on_arm(sea_core_t *core, const sea_frame_t *frame)
{
    sea_msg_arm_t arm;
    if (!sea_unpack_arm(&arm, frame->payload, frame->size)) {
        core->counters.frames_unknown++;
    } else if (core->refusal != 0) {
        sea_refuse_code(core, frame, SEA_NACK_CODE_REFUSED, core->refusal);
    } else if (!sea_equal(arm.board_nonce, core->board_nonce, sizeof arm.board_nonce)) {
        sea_refuse_code(core, frame, SEA_NACK_CODE_NONCE, 0);
    } else if (core->state == SEA_STATE_ARMED) {
        sea_accept(core, frame, SEA_ACK_CODE_ALREADY, NULL);
    } else if (!core->armable) {
        sea_refuse_code(core, frame, SEA_NACK_CODE_NONCE, 0);
    } else if (!is_released(core, &arm)) {
        sea_refuse_code(core, frame, SEA_NACK_CODE_RELEASE, 0);
    } else if (sea_event(core, SEA_EVENT_ARM, SEA_CAUSE_ARMED_BY_HOST)) {
        core->observation.fresh = true;
        core->observation.seen = false;
        sea_accept(core, frame, SEA_ACK_CODE_DONE, NULL);
    } else {
        sea_refuse_code(core, frame, SEA_NACK_CODE_STATE, core->state);
    }
}
