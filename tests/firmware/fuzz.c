/* Random frames, noise and time steps against the core; an independent judge watches every pulse.
 *
 * usage: fuzz SEED ROUNDS   prints what happened; exit code 1 at the first pulse outside the envelope.
 * The numbers of the envelope are written out here: the judge shares no table with the core.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sea_core.h"

/* The board's policy: one slot a value. A slot has a pulse where its value is above 3; a value of -128 is not finite. */
#define VALUES 230 /* two fragments, the second one short */
#define HEAD 28

static bool infers; /* the policy reads the observation now */

static void policy_reset(void)
{
}

static void policy_infer(const int8_t *observation, int32_t *logits)
{
    for (int i = 0; i < VALUES; i++) {
        const bool bad = observation[i] == INT8_MIN;
        logits[2 * i] = bad ? INT32_MIN : 3;
        logits[2 * i + 1] = bad ? INT32_MIN : observation[i];
    }
}

static const sea_policy_t POLICY = {.n_obs = VALUES,
                                    .slots = VALUES,
                                    .slot_period_us = 7000,
                                    .amplitude_uA = 4000,
                                    .width_us = 100,
                                    .reset = policy_reset,
                                    .infer = policy_infer};

typedef struct {
    uint32_t id;
    uint64_t lease_us;
    uint8_t blob[HEAD + VALUES];
} observed_t;

typedef struct {
    sea_core_t core;
    uint64_t random;
    uint64_t now_us;
    uint64_t lease_until_us; /* latest end of a lease that the board has acknowledged */
    uint64_t leases_us[2];   /* of the two newest orders taken: no others can be held */
    uint64_t asked_lease_us; /* of the newest order sent */
    uint64_t last_pulse_us;
    uint64_t pulses;
    uint64_t acks;
    uint64_t nacks;
    uint64_t stops;
    uint64_t visits[6];
    uint32_t session;
    uint32_t sequence;
    uint8_t board_nonce[16];
    bool pulsed; /* since power-on */
    observed_t observed[8]; /* what was sent lately, by id */
    uint64_t decisions;
    uint64_t not_finite;
    uint64_t answered; /* id of the newest decision told, of this session */
    bool dead;
    bool unbalanced;
    bool grounded;
    sea_rx_t rx;
} world_t;

static uint32_t draw(world_t *w, uint32_t below)
{
    w->random ^= w->random << 13;
    w->random ^= w->random >> 7;
    w->random ^= w->random << 17;
    return (uint32_t)(w->random >> 32) % below;
}

static void violation(const world_t *w, const char *what)
{
    printf("violation at %" PRIu64 " us: %s\n", w->now_us, what);
    exit(1);
}

/* An order or renewal keeps every decision held alive, each for its own lease. */
static void acknowledged(world_t *w, const sea_msg_ack_t *ack)
{
    if (ack->lease_until_us > w->now_us + 1000000u) {
        violation(w, "a lease longer than a second");
    }
    if (ack->of_type == SEA_SET_STIM) {
        w->leases_us[1] = w->leases_us[0];
        w->leases_us[0] = w->asked_lease_us;
    }
    for (size_t i = 0; i < 2; i++) {
        const uint64_t until = w->now_us + w->leases_us[i];
        w->lease_until_us = until > w->lease_until_us ? until : w->lease_until_us;
    }
}

/* What the board decided is what one observation that was sent says, to the last slot. */
static void decided(world_t *w, const sea_msg_decision_t *decision)
{
    const observed_t *seen = &w->observed[decision->decision_id % 8u];
    bool finite = true;
    if (seen->id != decision->decision_id) {
        violation(w, "a decision on what nobody observed");
    }
    for (size_t i = 0; i < VALUES; i++) {
        finite = finite && (int8_t)seen->blob[HEAD + i] != INT8_MIN;
    }
    if (finite != (decision->code != SEA_NACK_CODE_NOT_FINITE)) {
        violation(w, "a decision that is not finite was taken for one");
    }
    for (size_t i = 0; finite && i < VALUES; i++) {
        const bool pulse = ((unsigned)decision->mask[i / 8u] >> (i % 8u) & 1u) != 0;
        if (pulse != ((int8_t)seen->blob[HEAD + i] > 3)) {
            violation(w, "a decision on another observation");
        }
    }
    if (decision->decision_id == w->answered) {
        return; /* told again: it buys nothing */
    }
    w->answered = decision->decision_id;
    w->not_finite += decision->code == SEA_NACK_CODE_NOT_FINITE;
    if (decision->code == 0) {
        w->decisions++;
        w->asked_lease_us = seen->lease_us;
        acknowledged(w, &(sea_msg_ack_t){.of_type = SEA_SET_STIM, .lease_until_us = decision->lease_until_us});
    }
}

static void tx(void *ctx, const uint8_t *bytes, size_t size)
{
    world_t *w = ctx;
    for (size_t i = 0; i < size; i++) {
        sea_frame_t frame;
        const sea_rx_event_t event = sea_rx_push(&w->rx, bytes[i], &frame);
        if (event == SEA_RX_NONE) {
            continue;
        }
        if (event != SEA_RX_FRAME) {
            violation(w, "the board sent a broken frame");
        }
        sea_msg_ack_t ack;
        sea_msg_hello_ack_t hello;
        sea_msg_decision_t decision;
        if (frame.type == SEA_ACK && sea_unpack_ack(&ack, frame.payload, frame.size)) {
            w->acks++;
            if (ack.code == SEA_ACK_CODE_DONE && (ack.of_type == SEA_SET_STIM || ack.of_type == SEA_RENEW)) {
                acknowledged(w, &ack);
            }
            if (ack.of_type == SEA_STOP) {
                w->stops++;
                w->lease_until_us = 0;
            }
        } else if (frame.type == SEA_DECISION && sea_unpack_decision(&decision, frame.payload, frame.size)) {
            decided(w, &decision);
        } else if (frame.type == SEA_NACK) {
            w->nacks++;
        } else if (frame.type == SEA_HELLO_ACK && sea_unpack_hello_ack(&hello, frame.payload, frame.size)) {
            if ((hello.refusal & SEA_REFUSAL_BUSY) == 0) {
                w->answered = w->session == frame.session ? w->answered : 0;
                w->session = frame.session;
                memcpy(w->board_nonce, hello.board_nonce, sizeof w->board_nonce);
            }
        }
    }
}

static bool stimulate(void *ctx, const sea_pulse_t *pulse, sea_given_t *given)
{
    world_t *w = ctx;
    const int64_t first = (int64_t)pulse->amplitude_uA[0] * pulse->width_us[0];
    const int64_t second = (int64_t)pulse->amplitude_uA[1] * pulse->width_us[1];
    if (first + second != 0) {
        violation(w, "charge is not balanced");
    }
    if (pulse->amplitude_uA[0] >= 0 || pulse->amplitude_uA[0] < -2500) {
        violation(w, "amplitude outside (0, 2.5] mA");
    }
    if (pulse->width_us[0] < 60 || pulse->width_us[0] > 120) {
        violation(w, "width outside 60 to 120 us");
    }
    if (-first > 30 * 8000) {
        violation(w, "charge density above 30 uC/cm2 on 0.008 cm2");
    }
    if (w->grounded || sea_core_state(&w->core) != SEA_STATE_CLOSED_LOOP) {
        violation(w, "a pulse outside CLOSED_LOOP");
    }
    if (pulse->start_us != w->now_us || w->now_us >= w->lease_until_us) {
        violation(w, "a pulse past the lease");
    }
    if (w->pulsed && w->now_us - w->last_pulse_us < 5405) {
        violation(w, "faster than 185 Hz");
    }
    w->pulses++;
    w->pulsed = true;
    w->last_pulse_us = w->now_us;
    *given = (sea_given_t){.residual_pC = w->unbalanced ? 1 : 0};
    return !w->dead;
}

static void ground(void *ctx, bool grounded)
{
    ((world_t *)ctx)->grounded = grounded;
}

/* A fragment of an observation: of a new one, or of one of the last, intact or forged. */
static size_t observe(world_t *w, uint8_t *payload)
{
    const uint32_t newest = w->core.newest_id;
    const uint32_t id = newest + draw(w, 3);
    observed_t *seen = &w->observed[id % 8u];
    if (seen->id != id || draw(w, 30) == 0) {
        const bool bad = draw(w, 8) == 0;
        int8_t low = INT8_MAX;
        int8_t high = INT8_MIN;
        if (seen->id == id && (w->core.observation.id == id || w->answered == id)) {
            return 0; /* the board may hold parts of it: another one of the same name would be a host's error */
        }
        seen->id = id;
        for (size_t i = 0; i < VALUES; i++) {
            const int8_t value = (int8_t)(bad && i == 100 ? -128 : (int)draw(w, 20) - 10);
            seen->blob[HEAD + i] = (uint8_t)value;
            low = value < low ? value : low;
            high = value > high ? value : high;
        }
        const sea_msg_observe_head_t head = {
            .start_us = draw(w, 3) == 0 ? 0 : w->now_us + draw(w, 400000) - 100000u,
            .lease_ms = (uint16_t)(draw(w, 10) == 0 ? draw(w, 65536) : 20u + draw(w, 400)),
            .sample_first = id,
            .sample_last = id + VALUES - 1u,
            .valid = VALUES,
            .minimum = low,
            .maximum = high,
        };
        seen->lease_us = head.lease_ms * UINT64_C(1000);
        sea_pack_observe_head(seen->blob, &head);
    }
    uint8_t data[210];
    sea_msg_observe_t part = {.decision_id = id, .fragments = 2, .crc = sea_crc32(0, seen->blob, HEAD + VALUES)};
    part.fragment = (uint8_t)draw(w, 2);
    part.data_size = part.fragment == 0 ? 210 : HEAD + VALUES - 210;
    memcpy(data, seen->blob + 210 * part.fragment, part.data_size);
    part.data = data;
    if (draw(w, 12) == 0) { /* forged, in a whole frame */
        data[draw(w, (uint32_t)part.data_size)] ^= (uint8_t)(1u << draw(w, 8));
    }
    if (draw(w, 20) == 0) {
        part.fragment = (uint8_t)draw(w, 256);
    }
    if (draw(w, 20) == 0) {
        part.fragments = (uint8_t)draw(w, 256);
    }
    if (draw(w, 20) == 0) {
        part.data_size = draw(w, 211);
    }
    return sea_pack_observe(payload, &part);
}

static size_t order(world_t *w, uint8_t *payload, uint8_t *type)
{
    static const uint8_t schema[32] = SEA_SCHEMA_HASH;
    static const uint8_t limits[32] = SEA_LIMITS_HASH;
    sea_msg_hello_t hello = {.protocol_min = 1, .protocol_max = 1};
    sea_msg_arm_t arm = {0};
    sea_msg_set_stim_t stim = {0};
    sea_msg_renew_t renew;
    const uint32_t newest = w->core.newest_id;
    switch (draw(w, 24)) {
    case 0:
        hello.host_nonce[0] = (uint8_t)draw(w, 8);
        hello.host_nonce[1] = (uint8_t)draw(w, 256);
        memcpy(hello.schema_hash, schema, 32);
        memcpy(hello.limits_hash, limits, 32);
        hello.model_hash[0] = draw(w, 20) == 0;
        sea_pack_hello(payload, &hello);
        *type = SEA_HELLO;
        return SEA_HELLO_SIZE;
    case 1:
    case 2:
        memcpy(arm.board_nonce, w->board_nonce, 16);
        arm.board_nonce[3] = (uint8_t)(arm.board_nonce[3] ^ (draw(w, 20) == 0));
        sea_pack_arm(payload, &arm);
        *type = SEA_ARM;
        return SEA_ARM_SIZE;
    case 3:
        if (draw(w, 8) != 0) {
            *type = SEA_HEARTBEAT;
            return 0;
        }
        payload[0] = 0;
        *type = SEA_STOP;
        return SEA_STOP_SIZE;
    case 4:
        *type = SEA_STATUS_REQUEST;
        return 0;
    case 5:
        memset(payload, 0x5a, SEA_TIME_SYNC_SIZE);
        *type = SEA_TIME_SYNC;
        return SEA_TIME_SYNC_SIZE;
    case 6:
    case 7:
    case 8:
    case 9:
        renew.decision_id = newest - draw(w, 3);
        sea_pack_renew(payload, &renew);
        *type = SEA_RENEW;
        return SEA_RENEW_SIZE;
    case 10: { /* anything at all */
        const size_t size = draw(w, SEA_PAYLOAD_MAX + 1u);
        for (size_t i = 0; i < size; i++) {
            payload[i] = (uint8_t)draw(w, 256);
        }
        *type = (uint8_t)draw(w, 256);
        return size;
    }
    case 16:
    case 17:
    case 18:
    case 19:
    case 20:
    case 21:
    case 22:
    case 23:
        *type = SEA_OBSERVE;
        return observe(w, payload);
    default:
        stim.decision_id = newest + draw(w, 3);
        stim.start_us = draw(w, 3) == 0 ? 0 : w->now_us + draw(w, 400000) - 100000u;
        stim.slot_period_us = draw(w, 10) == 0 ? draw(w, UINT32_MAX) : 5400u + draw(w, 30000);
        stim.slots = (uint16_t)(draw(w, 10) == 0 ? draw(w, 65536) : 1u + draw(w, 60));
        for (size_t i = 0; i < sizeof stim.mask; i++) {
            stim.mask[i] = (uint8_t)draw(w, 256);
        }
        stim.amplitude_uA = draw(w, 10) == 0 ? draw(w, UINT32_MAX) : draw(w, 5200);
        stim.width_us = (uint16_t)(draw(w, 10) == 0 ? draw(w, 65536) : 58u + draw(w, 64));
        stim.lease_ms = (uint16_t)(draw(w, 10) == 0 ? draw(w, 65536) : 20u + draw(w, 400));
        w->asked_lease_us = stim.lease_ms * UINT64_C(1000);
        sea_pack_set_stim(payload, &stim);
        *type = SEA_SET_STIM;
        return SEA_SET_STIM_SIZE;
    }
}

static void send(world_t *w)
{
    uint8_t payload[SEA_PAYLOAD_MAX];
    uint8_t bytes[SEA_FRAME_MAX];
    sea_frame_t frame = {.version = (uint8_t)(1u + (draw(w, 50) == 0)), .payload = payload};
    frame.size = order(w, payload, &frame.type);
    w->sequence += draw(w, 12) == 0 ? 0u - draw(w, 3) : 1u;
    frame.sequence = w->sequence;
    frame.session = draw(w, 25) == 0 ? draw(w, UINT32_MAX) : w->session;
    size_t size = sea_frame_encode(bytes, &frame);
    if (draw(w, 8) == 0) {
        bytes[draw(w, (uint32_t)size)] ^= (uint8_t)(1u << draw(w, 8));
    }
    if (draw(w, 20) == 0) {
        size = draw(w, (uint32_t)size + 1u);
    }
    for (size_t at = 0; at < size;) { /* in pieces */
        const size_t piece = 1u + draw(w, (uint32_t)(size - at));
        (void)sea_core_feed(&w->core, bytes + at, piece, w->now_us);
        at += piece;
    }
}

/* The port's part: the policy takes a while, in which bytes come and pulses go. */
static void think(world_t *w, const int8_t **observation)
{
    static int8_t seen[VALUES];
    static int32_t logits[2 * VALUES];
    if (!infers && sea_core_to_decide(&w->core, observation)) {
        infers = true;
        memcpy(seen, *observation, VALUES);
    } else if (infers && draw(w, 3) == 0) {
        infers = false;
        if (memcmp(seen, *observation, VALUES) != 0) {
            violation(w, "an observation changed while it was decided on");
        }
        policy_infer(*observation, logits);
        (void)sea_core_decided(&w->core, logits, w->now_us);
    }
}

static void live(world_t *w)
{
    const uint64_t until = w->now_us + draw(w, draw(w, 4) == 0 ? 300000 : 20000);
    const bool sloppy = draw(w, 3) == 0; /* a port that wakes late */
    uint64_t due;
    while (!sloppy && (due = sea_core_next_us(&w->core)) <= until) {
        w->now_us = due > w->now_us ? due : w->now_us;
        if (sea_core_tick(&w->core, w->now_us) != SEA_OK) {
            violation(w, "the clock was refused");
        }
        if (sea_core_next_us(&w->core) <= w->now_us) {
            violation(w, "something due was not done");
        }
    }
    w->now_us = until;
    (void)sea_core_tick(&w->core, w->now_us);
    if (draw(w, 100) == 0 && w->now_us > 0 && sea_core_tick(&w->core, w->now_us - 1u) != SEA_ERR_CLOCK) {
        violation(w, "a clock that goes backwards was taken");
    }
}

int main(int argc, char **argv)
{
    static world_t w;
    if (argc != 3) {
        return 2;
    }
    w.random = strtoull(argv[1], NULL, 10) * 2654435769u + 88172645463325252u;
    const unsigned long rounds = strtoul(argv[2], NULL, 10);
    const int8_t *observation = NULL;
    sea_config_t config = {
        .simulated_output = true,
        .boot_count = 1,
        .limits = {.amplitude_uA = 2500, .electrode_area = 8000, .v_max_mV = 10000, .dose_uW = 250, .toggles = 40},
        .policy = &POLICY};
    const sea_port_t port = {.ctx = &w, .tx = tx, .stimulate = stimulate, .ground = ground};
    sea_rx_init(&w.rx);
    (void)sea_core_init(&w.core, &config, &port);
    for (unsigned long i = 0; i < rounds; i++) {
        const uint8_t before = sea_core_state(&w.core);
        w.visits[before]++;
        send(&w);
        think(&w, &observation);
        if (draw(&w, 3) == 0) {
            live(&w);
        }
        if (before == SEA_STATE_SAFE_OFF && sea_core_state(&w.core) != SEA_STATE_SAFE_OFF) {
            violation(&w, "SAFE_OFF was left without a person");
        }
        if (draw(&w, 400) == 0) {
            (void)sea_core_person(&w.core);
        }
        w.dead = draw(&w, 100) == 0;
        w.unbalanced = draw(&w, 100) == 0;
        if (draw(&w, 20000) == 0) { /* power loss */
            config.boot_count++;
            (void)sea_core_init(&w.core, &config, &port);
            w.now_us = 0;
            w.last_pulse_us = 0;
            w.lease_until_us = 0;
            w.pulsed = false;
            infers = false;
            memset(w.observed, 0, sizeof w.observed);
            w.answered = 0;
        }
    }
    printf("pulses %" PRIu64 " acks %" PRIu64 " nacks %" PRIu64 " stops %" PRIu64 " visits", w.pulses, w.acks, w.nacks, w.stops);
    for (size_t i = 0; i < 6; i++) {
        printf(" %" PRIu64, w.visits[i]);
    }
    printf(" decisions %" PRIu64 " not-finite %" PRIu64 "\n", w.decisions, w.not_finite);
    return 0;
}
