/* The host's side of world.h: what it sends, right, wrong, damaged and forged. */
#ifndef HOST_H
#define HOST_H

#include "world.h"

/* An encoder of the host's own, with the host's tag. */
static size_t host_encode(world_t *w, uint8_t *out, const sea_frame_t *frame, bool forged)
{
    uint8_t body[SEA_BODY_MAX] = {frame->version, frame->type};
    size_t size = SEA_HEADER_SIZE;
    size_t code_at = 1;
    size_t at = 2;
    sea_put_u32(body + 2, frame->sequence);
    sea_put_u32(body + 6, frame->session);
    memcpy(body + size, frame->payload, frame->size);
    size += frame->size;
    sea_auth_tag(&w->auth, SEA_FROM_HOST, body, size, body + size);
    if (forged) {
        body[size + draw(w, SEA_AUTH_SIZE)] ^= (uint8_t)(1u + draw(w, 255));
    }
    size += SEA_AUTH_SIZE;
    sea_put_u32(body + size, sea_crc32(sea_type_is_frozen(frame->type) ? 0 : SEA_SCHEMA_SEED, body, size));
    size += 4;
    out[0] = 0;
    for (size_t i = 0; i < size; i++) {
        if (body[i] == 0) {
            out[code_at] = (uint8_t)(at - code_at);
            code_at = at++;
        } else {
            out[at++] = body[i];
        }
    }
    out[code_at] = (uint8_t)(at - code_at);
    out[at++] = 0;
    return at;
}

/* A fragment of an observation: of a new one, or of one of the last, intact or forged. */
static size_t observe(world_t *w, uint8_t *payload)
{
    const uint32_t answered = w->core.answer.id;
    const uint32_t newest = w->core.shadow || answered > w->core.newest_id ? answered : w->core.newest_id;
    const uint32_t next = newest + (draw(w, 8) == 0 ? draw(w, 3) : 1u);
    const uint32_t id = draw(w, 4) != 0 && w->core.observation.id > newest ? w->core.observation.id : next;
    observed_t *seen = &w->observed[id % 8u];
    if (seen->id != id || draw(w, 30) == 0) {
        const bool bad = draw(w, 16) == 0;
        int8_t low = INT8_MAX;
        int8_t high = INT8_MIN;
        if ((seen->id == id && (w->core.observation.id == id || w->answered == id)) ||
            (w->core.observation.id != 0 && w->core.observation.id % 8u == id % 8u && w->core.observation.id != id)) {
            return 0; /* the board may hold parts of it: another one of the same name would be a host's error */
        }
        seen->id = id;
        for (size_t i = 0; i < VALUES; i++) {
            const int8_t value = (int8_t)(bad && i == 33 * STRIDE ? -128 : (int)draw(w, 20) - 10);
            seen->blob[HEAD + i] = (uint8_t)value;
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
        const sea_msg_observe_head_t head = {
            .start_us = draw(w, 3) == 0 ? 0 : w->now_us + draw(w, 400000) - 100000u,
            .lease_ms = (uint16_t)(draw(w, 10) == 0 ? draw(w, 65536) : 20u + draw(w, 400)),
            .sample_first = id,
            .sample_last = id + (draw(w, 20) == 0 ? draw(w, 300) : VALUES - 1u),
            .valid = VALUES,
            .minimum = low,
            .maximum = high,
        };
        seen->lease_us = head.lease_ms * UINT64_C(1000);
        sea_pack_observe_head(seen->blob, &head);
    }
    uint8_t data[210];
    sea_msg_observe_t part = {.decision_id = id, .fragments = 2, .crc = sea_crc32(0, seen->blob, HEAD + VALUES)};
    part.fragment = (uint8_t)((draw(w, 8) == 0) ^ (w->core.observation.id == id));
    part.data_size = part.fragment == 0 ? 210 : HEAD + VALUES - 210;
    memcpy(data, seen->blob + 210 * part.fragment, part.data_size);
    part.data = data;
    switch (draw(w, 64)) {
    case 0:
    case 1:
    case 2: /* forged, in a whole frame */
        data[draw(w, (uint32_t)part.data_size)] ^= (uint8_t)(1u << draw(w, 8));
        break;
    case 3:
        part.fragment = (uint8_t)draw(w, 256);
        break;
    case 4:
        part.fragments = (uint8_t)draw(w, 256);
        break;
    case 5:
        part.data_size = draw(w, 211);
        break;
    default:
        break;
    }
    return sea_pack_observe(payload, &part);
}

static size_t hello(world_t *w, uint8_t *payload)
{
    sea_msg_hello_t m = {.protocol_min = SEA_PROTOCOL, .protocol_max = SEA_PROTOCOL};
    const uint32_t other = draw(w, 40);
    m.host_nonce[0] = (uint8_t)draw(w, 8);
    m.host_nonce[1] = (uint8_t)draw(w, 256);
    m.features = draw(w, 4) == 0 ? SEA_FEATURE_SHADOW : 0;
    memcpy(m.schema_hash, SCHEMA, sizeof SCHEMA);
    memcpy(m.limits_hash, LIMITS, sizeof LIMITS);
    memcpy(m.model_hash, w->config.model_hash, sizeof m.model_hash);
    m.schema_hash[0] = (uint8_t)(m.schema_hash[0] + (other == 1));
    m.limits_hash[0] = (uint8_t)(m.limits_hash[0] + (other == 2));
    m.model_hash[0] = (uint8_t)(m.model_hash[0] + (other == 3));
    m.protocol_min = (uint8_t)(m.protocol_min + (other == 4));
    w->hello = m;
    sea_pack_hello(payload, &m);
    return SEA_HELLO_SIZE;
}

static size_t arm(world_t *w, uint8_t *payload)
{
    sea_msg_arm_t m = {.verdict_hash = {9}};
    const uint32_t other = draw(w, 16);
    memcpy(m.board_nonce, w->board_nonce, sizeof m.board_nonce);
    if (w->config.device_key != NULL) {
        sea_auth_release(DEVICE_KEY, w->said.model_hash, m.verdict_hash, m.release_tag);
    }
    m.board_nonce[3] = (uint8_t)(m.board_nonce[3] ^ (other == 1));
    m.verdict_hash[1] = other == 2;
    m.release_tag[31] = (uint8_t)(m.release_tag[31] ^ (other == 3));
    w->released = other != 2 && other != 3;
    sea_pack_arm(payload, &m);
    return SEA_ARM_SIZE;
}

static size_t set_stim(world_t *w, uint8_t *payload)
{
    sea_msg_set_stim_t m = {.decision_id = w->core.newest_id + (draw(w, 8) == 0 ? draw(w, 3) : 1u)};
    const uint32_t odd = draw(w, 64); /* one value anywhere in its type */
    const size_t at = w->sequence % ASKED;
    m.start_us = odd < 20 ? 0 : w->now_us + draw(w, 400000) - 100000u;
    m.amplitude_uA = odd == 30 ? draw(w, UINT32_MAX) : draw(w, 5200);
    m.slot_period_us = odd == 31 ? draw(w, UINT32_MAX) : 5400u + draw(w, 30000);
    m.lease_ms = (uint16_t)(odd == 32 ? draw(w, 65536) : 20u + draw(w, 400));
    m.slots = (uint16_t)(odd == 33 ? draw(w, 65536) : 1u + draw(w, 60));
    m.width_us = (uint16_t)(odd == 34 ? draw(w, 65536) : 58u + draw(w, 64));
    m.sensing = (uint8_t)(odd == 35 ? draw(w, 256) : 0);
    for (size_t i = 0; i < sizeof m.mask; i++) {
        m.mask[i] = (uint8_t)draw(w, 256);
    }
    w->asked[at].lease_us = m.lease_ms * UINT64_C(1000);
    w->asked[at].sequence = w->sequence;
    sea_pack_set_stim(payload, &m);
    return SEA_SET_STIM_SIZE;
}

static size_t message(world_t *w, uint8_t *payload, uint8_t *type)
{
    const bool may_order = w->judge.state == SEA_STATE_ARMED || w->judge.state == SEA_STATE_CLOSED_LOOP;
    const uint32_t any = draw(w, 24);
    const uint32_t kind = may_order || any < 10 ? any : any % 3u; /* who is not armed asks to be */
    size_t size = 0;
    if (kind < 1) {
        *type = SEA_HELLO;
        size = hello(w, payload);
    } else if (kind < 3) {
        *type = SEA_ARM;
        size = arm(w, payload);
    } else if (kind < 4) {
        const bool stop = draw(w, 8) == 0;
        payload[0] = 0;
        *type = stop ? SEA_STOP : SEA_HEARTBEAT;
        size = stop ? SEA_STOP_SIZE : 0;
    } else if (kind < 5) {
        *type = SEA_STATUS_REQUEST;
    } else if (kind < 6) {
        memset(payload, 0x5a, SEA_TIME_SYNC_SIZE);
        *type = SEA_TIME_SYNC;
        size = SEA_TIME_SYNC_SIZE;
    } else if (kind < 10) {
        const sea_msg_renew_t renew = {.decision_id = w->core.newest_id - draw(w, 3)};
        sea_pack_renew(payload, &renew);
        *type = SEA_RENEW;
        size = SEA_RENEW_SIZE;
    } else if (kind < 11) { /* anything at all, of any length */
        *type = (uint8_t)draw(w, 256);
        size = draw(w, SEA_PAYLOAD_MAX + 1u);
        for (size_t i = 0; i < size; i++) {
            payload[i] = (uint8_t)draw(w, 256);
        }
        if (*type == SEA_SET_STIM || *type == SEA_OBSERVE) {
            *type = SEA_RENEW; /* what is not written down cannot be judged */
        }
    } else if (kind < 16 && (w->config.policy == NULL || w->core.shadow || draw(w, 4) == 0)) { /* else the board decides */
        *type = SEA_SET_STIM;
        size = set_stim(w, payload);
    } else {
        *type = SEA_OBSERVE;
        size = observe(w, payload);
    }
    return size;
}

static void feed(world_t *w, const uint8_t *bytes, size_t size)
{
    for (size_t at = 0; at < size;) { /* in pieces */
        const size_t piece = 1u + draw(w, (uint32_t)(size - at));
        (void)sea_core_feed(&w->core, bytes + at, piece, w->now_us);
        at += piece;
    }
}

static void send(world_t *w)
{
    uint8_t payload[SEA_PAYLOAD_MAX] = {0};
    uint8_t bytes[SEA_FRAME_MAX];
    const uint8_t end = 0;
    const bool keyed = w->config.device_key != NULL;
    if (w->open_end) { /* it is taken under its own name */
        w->open_end = false;
        (void)sea_core_feed(&w->core, &end, 1, w->now_us);
    }
    const uint32_t fate = draw(w, 128);
    w->sequence += fate < 3 ? 0u - fate : 1u;
    sea_frame_t frame = {.version = (uint8_t)(SEA_PROTOCOL + (fate == 4)), .payload = payload};
    frame.size = message(w, payload, &frame.type);
    frame.sequence = w->sequence;
    frame.session = fate == 5 || fate == 6 ? draw(w, UINT32_MAX) : w->session;
    const bool anybody = frame.type == SEA_HELLO || frame.type == SEA_STOP;
    const bool forged = keyed && !anybody && fate >= 7 && fate < 10;
    const bool again = keyed && fate >= 10 && fate < 12 && w->last_size > 0;
    const bool damaged = fate >= 12 && fate < 18;
    const bool cut = fate >= 18 && fate < 21;
    size_t size = host_encode(w, bytes, &frame, forged);
    if (again) {
        size = w->last_size;
        memcpy(bytes, w->last, size);
    }
    if (damaged) {
        bytes[draw(w, (uint32_t)size)] ^= (uint8_t)(1u << draw(w, 8));
    }
    if (cut) {
        size = draw(w, (uint32_t)size + 1u);
        w->open_end = true;
    }
    w->hostile = forged || again;
    w->hostiles += w->hostile;
    feed(w, bytes, size);
    w->hostile = false;
    if (keyed && fate > 21 && !anybody) {
        w->last_size = size;
        memcpy(w->last, bytes, size);
    }
}

/* The port's part: the policy takes a while, in which bytes come and pulses go. */
static void think(world_t *w)
{
    const int8_t *values;
    int32_t logits[2 * SLOTS];
    if (!w->infers && sea_core_to_decide(&w->core, &values)) {
        w->infers = true;
        memcpy(w->seen, values, VALUES);
    } else if (w->infers && draw(w, 3) != 0) {
        values = (const int8_t *)w->core.observation.blob + HEAD;
        w->infers = false;
        if (memcmp(w->seen, values, VALUES) != 0) {
            world_violation("an observation changed while it was decided on");
        }
        policy_infer(values, logits);
        (void)sea_core_decided(&w->core, logits, w->now_us);
    }
}

static void live(world_t *w)
{
    static const uint32_t lengths_us[16] = {9000,  9000,  9000,  20000, 20000,  20000,  20000,  20000,
                                             20000, 20000, 20000, 20000, 100000, 100000, 300000, 1500000};
    const uint64_t until = w->now_us + draw(w, lengths_us[draw(w, 16)]);
    const uint32_t port = draw(w, 16);
    if (port == 0) { /* only the next frame tells the time */
        w->now_us = until;
        return;
    }
    uint64_t due;
    while (port < 11 && (due = sea_core_next_us(&w->core)) <= until) {
        w->now_us = due > w->now_us ? due : w->now_us;
        if (sea_core_tick(&w->core, w->now_us) != SEA_OK) {
            world_violation("the clock was refused");
        }
        if (sea_core_next_us(&w->core) <= w->now_us) {
            world_violation("something due was not done");
        }
    }
    w->now_us = until; /* else a port that wakes late */
    (void)sea_core_tick(&w->core, w->now_us);
    if (port == 15 && w->now_us > 0 && sea_core_tick(&w->core, w->now_us - 1u) != SEA_ERR_CLOCK) {
        world_violation("a clock that goes backwards was taken");
    }
}

/* What is neither the host's nor the clock's. */
static void happen(world_t *w)
{
    static const uint32_t ohms[8] = {700, 700, 700, 700, 1500, 49, 2001, 5000};
    switch (draw(w, 12)) {
    case 0:
        w->dead = draw(w, 2) == 0;
        break;
    case 1:
        w->unbalanced = draw(w, 2) == 0;
        break;
    case 2:
    case 3:
        w->ohm = ohms[draw(w, 8)];
        break;
    case 4:
    case 5:
        sea_core_overrun(&w->core);
        break;
    case 6:
        if (draw(w, 8) == 0) {
            sea_core_corrupt(&w->core);
            if (sea_core_state(&w->core) != SEA_STATE_SAFE_OFF) {
                world_violation("memory that changed did not lead to SAFE_OFF");
            }
        }
        break;
    default:
        w->dead = w->unbalanced = false;
        w->ohm = 700;
        w->judge.person = true;
        if (sea_core_person(&w->core) == SEA_OK) {
            w->judge.ohm = 0;
        }
        w->judge.person = false;
        break;
    }
}

/* One step of the world, by the choices at hand. */
static void world_step(world_t *w)
{
    const uint32_t kind = draw(w, 64);
    w->visits[sea_core_state(&w->core)]++;
    if (kind < 36) {
        send(w);
    } else if (kind < 48) {
        live(w);
    } else if (kind < 60) {
        think(w);
    } else if (kind < 63 && draw(w, 4) == 0) {
        happen(w);
    } else if (kind == 63) { /* noise */
        uint8_t bytes[8];
        for (size_t i = 0; i < sizeof bytes; i++) {
            bytes[i] = (uint8_t)draw(w, 256);
        }
        w->open_end = false;
        (void)sea_core_feed(&w->core, (const uint8_t[]){0}, 1, w->now_us);
        (void)sea_core_feed(&w->core, bytes, 1u + draw(w, sizeof bytes), w->now_us);
    }
    judge_after(&w->judge, sea_core_state(&w->core));
}

#endif
