/* A host, an electrode and a clock around the core, all driven by choices: of a generator (fuzz.c), or of a fuzzer's bytes
 * (tests/fuzz/core.c). judge.h watches what the board gives, this file what it answers. */
#ifndef WORLD_H
#define WORLD_H

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sea_core.h"

static void world_violation(const char *what);
#define JUDGE_FAIL(what) world_violation(what)
#include "judge.h"

/* The board's policy: a slot has a pulse where its value is above 3; a value of -128 is not finite. */
#define VALUES 230 /* two fragments, the second one short */
#define SLOTS 60
#define STRIDE 3 /* slot i reads value 3 i */
#define HEAD SEA_OBSERVE_HEAD_SIZE
#define ASKED 16u

/* How a board is built: bits. */
enum { KEYED = 1, FIXED = 2, LITTLE_DOSE = 4, HOST_DECIDES = 8, MEASURES = 16, FEW_TOGGLES = 32, BOUND = 64, VARIANTS = 128 };

typedef struct {
    uint32_t id;
    uint64_t lease_us;
    uint8_t blob[HEAD + VALUES];
} observed_t;

typedef struct {
    const uint8_t *bytes; /* choices; then the generator's */
    size_t left;
    uint64_t random;
} choices_t;

typedef struct {
    sea_core_t core;
    sea_config_t config;
    choices_t choices;
    judge_t judge;
    uint64_t now_us;
    struct {
        uint32_t sequence;
        uint64_t lease_us;
    } asked[ASKED]; /* SET_STIM as sent */
    uint32_t session;
    uint32_t sequence;
    sea_msg_hello_t hello; /* as sent last */
    sea_msg_hello_t said; /* of the session under way */
    bool released; /* the ARM sent last carried a release of the session's model */
    uint8_t board_nonce[16];
    sea_auth_t auth;
    observed_t observed[8]; /* what was sent lately, by id */
    uint64_t answered; /* id of the newest decision told, of this session */
    uint8_t last[SEA_FRAME_MAX]; /* a signed frame, delivered whole */
    size_t last_size;
    int8_t seen[VALUES];
    bool infers; /* the policy reads the observation now */
    bool open_end; /* the newest frame lost its end */
    bool hostile; /* the frame on its way is forged or sent again */
    bool dead;
    bool unbalanced;
    uint32_t ohm;
    uint64_t acks, nacks, stops, decisions, not_finite, hostiles, shadowed;
    uint64_t visits[6];
    sea_rx_t rx;
} world_t;

static world_t world;
static const uint8_t DEVICE_KEY[SEA_KEY_SIZE] = {3, 1, 4, 1, 5, 9, 2, 6};
static const uint8_t SCHEMA[32] = SEA_SCHEMA_HASH;
static const uint8_t LIMITS[32] = SEA_LIMITS_HASH;

static void world_violation(const char *what)
{
    printf("violation at %" PRIu64 " us: %s\n", world.now_us, what);
    fflush(stdout);
#ifdef WORLD_ABORTS
    abort();
#else
    exit(1);
#endif
}

static uint32_t draw(world_t *w, uint32_t below)
{
    choices_t *c = &w->choices;
    const size_t wanted = below <= 256 ? 1 : below <= 65536 ? 2 : 4;
    uint32_t value = 0;
    if (c->left >= wanted) {
        for (size_t i = 0; i < wanted; i++) {
            value |= (uint32_t)*c->bytes++ << (8 * i);
        }
        c->left -= wanted;
        return value % below;
    }
    c->random ^= c->random << 13;
    c->random ^= c->random >> 7;
    c->random ^= c->random << 17;
    return (uint32_t)(c->random >> 32) % below;
}

static void policy_reset(void)
{
}

static void policy_infer(const int8_t *observation, int32_t *logits)
{
    for (int i = 0; i < SLOTS; i++) {
        const int8_t value = observation[STRIDE * i];
        logits[2 * i] = value == INT8_MIN ? INT32_MIN : 3;
        logits[2 * i + 1] = value == INT8_MIN ? INT32_MIN : value;
    }
}

static const sea_policy_t POLICY = {.format = SEA_POLICY_INT8,
                                    .n_obs = VALUES,
                                    .slots = SLOTS,
                                    .slot_period_us = 7000,
                                    .amplitude_uA = 4000,
                                    .width_us = 100,
                                    .reset = policy_reset,
                                    .infer = policy_infer};

/* What the board decided is what one observation that was sent says, to the last slot. */
static void decided(world_t *w, const sea_msg_decision_t *decision)
{
    const observed_t *seen = &w->observed[decision->decision_id % 8u];
    const int8_t *values = (const int8_t *)seen->blob + HEAD;
    bool finite = true;
    if (seen->id != decision->decision_id) {
        world_violation("a decision on what nobody observed");
    }
    for (size_t i = 0; i < SLOTS; i++) {
        finite = finite && values[STRIDE * i] != INT8_MIN;
    }
    if (finite != (decision->code != SEA_NACK_CODE_NOT_FINITE)) {
        world_violation("a decision that is not finite was taken for one");
    }
    for (size_t i = 0; finite && i < SLOTS; i++) {
        const bool pulse = ((unsigned)decision->mask[i / 8u] >> (i % 8u) & 1u) != 0;
        if (pulse != (values[STRIDE * i] > 3)) {
            world_violation("a decision on another observation");
        }
    }
    if (decision->decision_id == w->answered) {
        return; /* told again: it buys nothing */
    }
    w->answered = decision->decision_id;
    w->not_finite += decision->code == SEA_NACK_CODE_NOT_FINITE;
    if ((w->said.features & SEA_FEATURE_SHADOW) != 0) {
        w->shadowed++;
    } else if (decision->code == 0) {
        w->decisions++;
        judge_order(&w->judge, seen->lease_us, decision->amplitude_uA, decision->lease_until_us, w->core.now_us);
    }
}

static void acknowledged(world_t *w, const sea_msg_ack_t *ack)
{
    const size_t at = ack->of_sequence % ASKED;
    w->acks++;
    w->stops += ack->of_type == SEA_STOP;
    if (ack->code != SEA_ACK_CODE_DONE) {
        return;
    }
    if (ack->of_type == SEA_SET_STIM) {
        if (w->asked[at].sequence != ack->of_sequence) {
            world_violation("an order was taken that nobody gave");
        }
        judge_order(&w->judge, w->asked[at].lease_us, ack->amplitude_uA, ack->lease_until_us, w->core.now_us);
    } else if (ack->of_type == SEA_RENEW) {
        judge_lease(&w->judge, ack->lease_until_us, w->core.now_us);
    }
}

static void shaken(world_t *w, const sea_frame_t *frame)
{
    sea_msg_hello_ack_t hello;
    if (!sea_unpack_hello_ack(&hello, frame->payload, frame->size) || (hello.refusal & SEA_REFUSAL_BUSY) != 0) {
        return;
    }
    if (w->session != frame->session) {
        w->answered = 0;
        w->said = w->hello;
    }
    w->session = frame->session;
    memcpy(w->board_nonce, hello.board_nonce, sizeof w->board_nonce);
    sea_auth_open(&w->auth, w->config.device_key, hello.host_nonce, hello.board_nonce);
}

/* Each frame of the board's is whole and signed; a forged one gets no answer but that it was no frame. */
static void answered(world_t *w, const sea_frame_t *frame)
{
    sea_msg_ack_t ack;
    sea_msg_nack_t nack;
    sea_msg_status_t status;
    sea_msg_decision_t decision;
    bool to_somebody = true;
    if (frame->type == SEA_HELLO_ACK) {
        shaken(w, frame);
    }
    if (!sea_auth_check(&w->auth, SEA_FROM_BOARD, frame->body, (size_t)(frame->auth - frame->body), frame->auth)) {
        world_violation("the board signed with another key");
    }
    if (frame->type == SEA_ACK && sea_unpack_ack(&ack, frame->payload, frame->size)) {
        acknowledged(w, &ack);
    } else if (frame->type == SEA_DECISION && sea_unpack_decision(&decision, frame->payload, frame->size)) {
        decided(w, &decision);
    } else if (frame->type == SEA_NACK && sea_unpack_nack(&nack, frame->payload, frame->size)) {
        w->nacks++;
        to_somebody = nack.code != SEA_NACK_CODE_BAD_FRAME;
    } else if (frame->type == SEA_STATUS && sea_unpack_status(&status, frame->payload, frame->size)) {
        to_somebody = status.of_sequence != 0;
    }
    if (w->hostile && to_somebody) {
        world_violation("a forged or repeated frame was answered");
    }
}

static void tx(void *ctx, const uint8_t *bytes, size_t size)
{
    world_t *w = ctx;
    for (size_t i = 0; i < size; i++) {
        sea_frame_t frame;
        const sea_rx_event_t event = sea_rx_push(&w->rx, bytes[i], &frame);
        if (event == SEA_RX_FRAME || event == SEA_RX_AUTH) {
            answered(w, &frame);
        } else if (event != SEA_RX_NONE) {
            world_violation("the board sent a broken frame");
        }
    }
}

static bool stimulate(void *ctx, const sea_pulse_t *pulse, sea_given_t *given)
{
    world_t *w = ctx;
    if (pulse->start_us != w->core.now_us || pulse->start_us > w->now_us || pulse->start_us + 1u < w->now_us) {
        world_violation("a pulse at another time");
    }
    judge_pulse(&w->judge, pulse);
    *given = (sea_given_t){.residual_pC = w->unbalanced ? 1 : 0, .measured = w->judge.rules.v_max_mV < 10000};
    if (given->measured && !w->dead && !w->unbalanced) {
        given->peak_uV = (uint32_t)pulse->amplitude_uA[1] * w->ohm;
        w->judge.ohm = w->ohm;
    }
    w->judge.failed = w->dead || w->unbalanced || (given->measured && (w->ohm < 50 || w->ohm > 2000));
    return !w->dead;
}

/* A board with a key, in a session in which a learned policy drives. */
static bool needs_release(const world_t *w)
{
    static const uint8_t none[32] = {0};
    return w->config.device_key != NULL && (w->said.features & SEA_FEATURE_SHADOW) == 0 &&
           memcmp(w->said.model_hash, none, sizeof none) != 0;
}

static void ground(void *ctx, bool grounded)
{
    world_t *w = ctx;
    judge_ground(&w->judge, w->core.state, grounded, w->core.now_us);
    if (w->core.state == SEA_STATE_ARMED && needs_release(w) && !w->released) {
        world_violation("a model without a release may drive");
    }
}

static const sea_port_t PORT = {.ctx = &world, .tx = tx, .stimulate = stimulate, .ground = ground};

/* Power comes on: once more, or for the first time. */
static void power_on(world_t *w, unsigned variant)
{
    const rules_t rules = {
        .limit_uA = 2500,
        .fixed_uA = (variant & FIXED) != 0 ? 500 : 0,
        .dose_nJ = (variant & LITTLE_DOSE) != 0 ? 10000 : 2500000,
        .v_max_mV = (variant & MEASURES) != 0 ? 1200 : 10000,
        .toggles = (variant & FEW_TOGGLES) != 0 ? 4 : 40,
    };
    w->config = (sea_config_t){
        .simulated_output = true,
        .boot_count = w->config.boot_count + 1u,
        .limits = {rules.limit_uA, 8000, rules.v_max_mV, (uint32_t)(rules.dose_nJ / 10000u), rules.toggles},
        .fallback = {rules.fixed_uA, 80, 9000},
        .policy = (variant & HOST_DECIDES) != 0 ? NULL : &POLICY,
        .device_key = (variant & KEYED) != 0 ? DEVICE_KEY : NULL,
        .model_hash = {(variant & BOUND) != 0},
    };
    judge_power_on(&w->judge, &rules);
    w->core.state = SEA_STATE_BOOT;
    w->now_us = 0;
    w->infers = false;
    w->open_end = false;
    w->last_size = 0;
    w->ohm = 700;
    memset(w->observed, 0, sizeof w->observed);
    memset(&w->auth, 0, sizeof w->auth);
    memset(&w->said, 0, sizeof w->said);
    w->answered = 0;
    w->session = 0;
    sea_rx_init(&w->rx);
    if (sea_core_init(&w->core, &w->config, &PORT) != SEA_OK) {
        world_violation("the board did not start");
    }
}

#endif
