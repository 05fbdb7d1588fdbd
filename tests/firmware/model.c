/* Model checker: the compiled core, driven breadth-first by 24 named events until no new state appears.
 *
 * usage: model [fixed]   with `fixed`, the board has a fixed setting for FALLBACK. Prints counts; exit code 1 and the
 * events that led there at the first violation.
 *
 * A state is the whole core as it will behave: absolute times stand relative to now, times longer past than anything asks
 * for are cut off; counters, sequence numbers, nonces, ids, causes and logged fault bits are left out, since nothing is
 * decided on them but "new" and "old", which are events of their own; samples follow one another. Time is a grid of 50 ms (and 2 ms aside), amplitudes
 * are small (the run-time limit is 50 uA), so that the ramp takes few steps; windows are short (see model_check.py). The
 * code is the board's own, to the letter. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sea_core.h"

#define VALUES 8u
#define GRID_US UINT64_C(50000)
#define LEASE_MS 100u
#define LIMIT_UA 50
#define FIXED_UA 25u
#define PAST_US UINT64_C(300000) /* no rule looks further back than this, the windows aside */
#define EVENTS 24u

static const char *const NAMES[EVENTS] = {
    "HELLO", "HELLO with other limits", "ARM", "ARM with another nonce", "ORDER", "ORDER, lower", "ORDER, ahead and wide",
    "ORDER without pulses", "ORDER out of range", "ORDER on bad sensing", "RENEW", "STOP", "a bit of memory flips", "receiver overrun",
    "OBSERVE", "OBSERVE, answer not finite", "OBSERVE, answered late", "50 ms", "100 ms, woken late", "1 s", "50 ms, output dead",
    "50 ms, unbalanced", "50 ms, electrode open", "a person, or a new start"};
enum { E_HELLO, E_HELLO_OTHER, E_ARM, E_ARM_OTHER, E_ORDER, E_LOWER, E_AHEAD, E_EMPTY, E_RANGE, E_SENSING, E_RENEW, E_STOP,
       E_FLIP, E_OVERRUN, E_OBSERVE, E_NOT_FINITE, E_SLOW, E_STEP, E_LATE, E_LONG, E_DEAD, E_UNBALANCED, E_OPEN, E_PERSON };

typedef struct {
    sea_core_t core;
    uint64_t lease_until_us; /* as the host bought it: the judge's own count */
    bool grounded;
    bool shaken; /* a handshake that has not been spent */
} node_t;

/* What a state is, for the set of the visited ones. */
typedef struct {
    uint64_t set_pA;
    uint64_t ramp_us, last_pulse_us, window_us, fixed_us, lease_us;
    struct {
        uint64_t start_us, lease_until_us, mask;
        uint32_t lease_us, period_us, amplitude_uA;
        uint16_t next, slots, width_us, held;
    } decisions[2];
    sea_bucket_t buckets[SEA_WINDOW_BUCKETS + 1u];
    uint32_t impedance_ohm;
    uint16_t refusal;
    uint8_t state, armable, session, pulsed, sensing_bad, not_finite, late, corrupt, shaken, grounded;
} canon_t;

typedef struct {
    uint64_t low, high;
} digest_t;

static node_t world;            /* the state under test */
static uint8_t event;           /* what happens to it */
static uint64_t before_us;
static uint64_t before_set_pA;
static unsigned pulses_now;
static bool not_finite;
static uint64_t pulses, transitions, safe_off;
static sea_config_t config;

static uint32_t *parents;
static uint8_t *via;
static uint32_t here; /* number of the state that is left */

static void path(uint32_t number)
{
    if (number != 0) {
        path(parents[number]);
        printf("  %s\n", NAMES[via[number]]);
    }
}

static void violation(const char *what)
{
    printf("violation: %s, after\n", what);
    path(here);
    printf("  %s\n", NAMES[event]);
    exit(1);
}

static void policy_reset(void)
{
}

static void policy_infer(const int8_t *observation, int32_t *logits)
{
    (void)observation;
    for (int i = 0; i < 4; i++) {
        logits[i] = not_finite ? INT32_MIN : i % 2;
    }
}

static const sea_policy_t POLICY = {.format = SEA_POLICY_INT8,
                                    .n_obs = VALUES,
                                    .slots = 2,
                                    .slot_period_us = GRID_US,
                                    .amplitude_uA = LIMIT_UA,
                                    .width_us = 60,
                                    .reset = policy_reset,
                                    .infer = policy_infer};

static void tx(void *ctx, const uint8_t *bytes, size_t size)
{
    sea_rx_t rx;
    (void)ctx;
    sea_rx_init(&rx);
    for (size_t i = 0; i < size; i++) {
        sea_frame_t frame;
        sea_msg_ack_t ack;
        sea_msg_decision_t decision;
        if (sea_rx_push(&rx, bytes[i], &frame) != SEA_RX_FRAME) {
            continue;
        }
        const uint64_t bought = world.core.now_us + LEASE_MS * 1000u;
        if (frame.type == SEA_ACK && sea_unpack_ack(&ack, frame.payload, frame.size) &&
            (ack.of_type == SEA_SET_STIM || ack.of_type == SEA_RENEW)) {
            world.lease_until_us = bought;
            if (ack.lease_until_us > bought) {
                violation("a lease longer than it was bought");
            }
        }
        if (frame.type == SEA_DECISION && sea_unpack_decision(&decision, frame.payload, frame.size)) {
            if (decision.code == 0) {
                world.lease_until_us = bought;
            }
            if (not_finite && decision.code == 0) {
                violation("an answer that is not finite was applied");
            }
        }
    }
}

static uint64_t reached(uint64_t now_us)
{
    return before_set_pA + (now_us - before_us) * 500u; /* 0.5 mA/s */
}

static bool stimulate(void *ctx, const sea_pulse_t *pulse, sea_given_t *given)
{
    const sea_core_t *core = &world.core;
    const int32_t amplitude = pulse->amplitude_uA[1];
    const bool fixed = core->state == SEA_STATE_FALLBACK && config.fallback.amplitude_uA > 0;
    (void)ctx;
    pulses++;
    pulses_now++;
    if (pulse->amplitude_uA[0] != -amplitude || pulse->width_us[0] != pulse->width_us[1]) {
        violation("charge is not balanced");
    }
    if (amplitude <= 0 || amplitude > LIMIT_UA || pulse->width_us[0] < 60 || pulse->width_us[0] > 120) {
        violation("a pulse outside its ranges");
    }
    if ((uint64_t)amplitude * 1000000u > reached(core->now_us)) {
        violation("a pulse above the ramp");
    }
    if (core->state != SEA_STATE_CLOSED_LOOP && !fixed) {
        violation("a pulse in a state that gives none");
    }
    if (world.grounded) {
        violation("a pulse while the electrode is grounded");
    }
    if (!fixed && core->now_us >= world.lease_until_us) {
        violation("a pulse past the lease");
    }
    if (pulses_now > 1 && pulses_now * 5406u > core->now_us - before_us + 5406u) {
        violation("faster than 185 Hz");
    }
    uint64_t energy_aJ = 0;
    for (size_t i = 0; i <= SEA_WINDOW_BUCKETS; i++) {
        energy_aJ += core->envelope.window.buckets[i].energy_aJ;
    }
    if (energy_aJ > config.limits.dose_uW * (uint64_t)SEA_WINDOW_BUCKETS * SEA_WINDOW_US * 1000000u ||
        core->envelope.window.buckets[0].energy_aJ < (uint64_t)(amplitude * amplitude) * SEA_DOSE_OHM * pulse->width_us[0]) {
        violation("the dose is above its cap, or not counted");
    }
    *given = (sea_given_t){.residual_pC = event == E_UNBALANCED ? 1 : 0, .measured = true};
    given->peak_uV = (uint32_t)amplitude * (event == E_OPEN ? 5000u : 1000u);
    return event != E_DEAD;
}

static void ground(void *ctx, bool grounded)
{
    (void)ctx;
    world.grounded = grounded;
}

static const sea_port_t port = {.tx = tx, .stimulate = stimulate, .ground = ground};

static void send(uint8_t type, const uint8_t *payload, size_t size)
{
    uint8_t bytes[SEA_FRAME_MAX];
    const sea_frame_t frame = {.version = SEA_PROTOCOL,
                               .type = type,
                               .sequence = world.core.rx_sequence + 1u,
                               .session = world.core.session,
                               .payload = payload,
                               .size = size};
    const size_t encoded = sea_frame_encode(bytes, &frame);
    (void)sea_core_feed(&world.core, bytes, encoded, world.core.now_us);
}

static void hello(bool other)
{
    static const uint8_t schema[32] = SEA_SCHEMA_HASH;
    static const uint8_t limits[32] = SEA_LIMITS_HASH;
    static uint32_t nonce;
    sea_msg_hello_t m = {.protocol_min = SEA_PROTOCOL, .protocol_max = SEA_PROTOCOL};
    uint8_t payload[SEA_HELLO_SIZE];
    nonce++;
    memcpy(m.host_nonce, &nonce, sizeof nonce);
    memcpy(m.schema_hash, schema, 32);
    memcpy(m.limits_hash, limits, 32);
    m.limits_hash[0] = (uint8_t)(m.limits_hash[0] + other);
    sea_pack_hello(payload, &m);
    send(SEA_HELLO, payload, sizeof payload);
}

static void arm(bool other)
{
    sea_msg_arm_t m = {0};
    uint8_t payload[SEA_ARM_SIZE];
    memcpy(m.board_nonce, world.core.board_nonce, sizeof m.board_nonce);
    m.board_nonce[0] = (uint8_t)(m.board_nonce[0] + other);
    sea_pack_arm(payload, &m);
    send(SEA_ARM, payload, sizeof payload);
}

static uint32_t next_id(void)
{
    const sea_core_t *core = &world.core;
    return (core->newest_id > core->answer.id ? core->newest_id : core->answer.id) + 1u;
}

static void order(void)
{
    sea_msg_set_stim_t m = {.decision_id = next_id(),
                            .slot_period_us = GRID_US,
                            .slots = 2,
                            .mask = {3},
                            .amplitude_uA = LIMIT_UA,
                            .width_us = 60,
                            .lease_ms = LEASE_MS};
    uint8_t payload[SEA_SET_STIM_SIZE];
    if (event == E_LOWER) {
        m.amplitude_uA = LIMIT_UA / 2;
    } else if (event == E_AHEAD) {
        m.start_us = world.core.now_us + GRID_US + 2000u; /* 2 ms aside: two decisions bring pulses near */
        m.width_us = 120;
        m.slots = 1;
    } else if (event == E_EMPTY) {
        m.mask[0] = 0;
    } else if (event == E_RANGE) {
        m.amplitude_uA = SEA_AMPLITUDE_MAX_UA + 1u;
    } else if (event == E_SENSING) {
        m.sensing = SEA_SENSING_GAP;
    }
    sea_pack_set_stim(payload, &m);
    send(SEA_SET_STIM, payload, sizeof payload);
}

static void step(uint64_t by_us, bool late)
{
    const uint64_t to_us = world.core.now_us + by_us;
    uint64_t due;
    for (unsigned i = 0; !late && (due = sea_core_next_us(&world.core)) <= to_us; i++) {
        (void)sea_core_tick(&world.core, due > world.core.now_us ? due : world.core.now_us);
        if (i > 100) {
            violation("something due is not done");
        }
    }
    (void)sea_core_tick(&world.core, to_us);
}

static void observe(void)
{
    uint8_t blob[SEA_OBSERVE_HEAD_SIZE + VALUES] = {0};
    uint8_t payload[SEA_OBSERVE_SIZE];
    sea_msg_observe_head_t head = {.lease_ms = LEASE_MS, .valid = VALUES, .maximum = 7};
    sea_msg_observe_head_t last;
    head.start_us = event == E_SLOW ? world.core.now_us + 1u : 0;
    const int8_t *observation;
    if (world.core.observation.seen && sea_unpack_observe_head(&last, world.core.observation.before, SEA_OBSERVE_HEAD_SIZE)) {
        head.sample_first = last.sample_last + 1u;
    }
    head.sample_last = head.sample_first + VALUES - 1u;
    sea_pack_observe_head(blob, &head);
    for (uint8_t i = 0; i < VALUES; i++) {
        blob[SEA_OBSERVE_HEAD_SIZE + i] = i;
    }
    const sea_msg_observe_t m = {.decision_id = next_id(),
                                 .fragments = 1,
                                 .crc = sea_crc32(0, blob, sizeof blob),
                                 .data = blob,
                                 .data_size = sizeof blob};
    send(SEA_OBSERVE, payload, sea_pack_observe(payload, &m));
    if (sea_core_to_decide(&world.core, &observation)) {
        policy_infer(observation, sea_core_logits(&world.core));
        if (event == E_SLOW) {
            step(GRID_US, false);
        }
        (void)sea_core_decided(&world.core, sea_core_logits(&world.core), world.core.now_us);
    }
}

/* Presses the button; where memory is not what it was, only a new start helps. */
static void person(void)
{
    const uint64_t now_us = world.core.now_us;
    if (sea_core_person(&world.core) != SEA_OK && world.core.corrupt) {
        (void)sea_core_init(&world.core, &config, &port);
        (void)sea_core_tick(&world.core, now_us);
    }
}

static void happen(void)
{
    sea_msg_renew_t renew = {.decision_id = world.core.current.id != 0 ? world.core.current.id : 1u};
    uint8_t payload[SEA_RENEW_SIZE];
    not_finite = event == E_NOT_FINITE;
    switch (event) {
    case E_HELLO:
    case E_HELLO_OTHER:
        hello(event == E_HELLO_OTHER);
        break;
    case E_ARM:
    case E_ARM_OTHER:
        arm(event == E_ARM_OTHER);
        break;
    case E_RENEW:
        sea_pack_renew(payload, &renew);
        send(SEA_RENEW, payload, sizeof payload);
        break;
    case E_STOP:
        send(SEA_STOP, (const uint8_t *)"", SEA_STOP_SIZE);
        break;
    case E_FLIP:
        world.core.effective.amplitude_uA ^= 0x1000u;
        (void)sea_core_tick(&world.core, world.core.now_us);
        break;
    case E_OVERRUN:
        sea_core_overrun(&world.core);
        break;
    case E_OBSERVE:
    case E_NOT_FINITE:
    case E_SLOW:
        observe();
        break;
    case E_LATE:
        step(2u * GRID_US, true);
        break;
    case E_LONG:
        step(20u * GRID_US, false);
        break;
    case E_STEP:
    case E_DEAD:
    case E_UNBALANCED:
    case E_OPEN:
        step(GRID_US, false);
        break;
    case E_PERSON:
        person();
        break;
    default:
        order();
        break;
    }
}

/* What must hold of every step, whatever the state. */
static void judge(uint8_t before)
{
    const sea_core_t *core = &world.core;
    const uint8_t after = core->state;
    const bool gives = after == SEA_STATE_CLOSED_LOOP ||
                       (after == SEA_STATE_FALLBACK && config.fallback.amplitude_uA > 0);
    if (world.grounded == gives) {
        violation("the electrode is grounded where it gives, or not where it does not");
    }
    if (before == SEA_STATE_SAFE_OFF && after != before && event != E_PERSON) {
        violation("SAFE_OFF was left without a person");
    }
    if (after == SEA_STATE_ARMED && before != after && (event != E_ARM || !world.shaken)) {
        violation("armed without a fresh handshake");
    }
    world.shaken = (world.shaken || event == E_HELLO) && event != E_STOP && event != E_HELLO_OTHER &&
                   (after == before || after == SEA_STATE_IDLE) && !(after == SEA_STATE_CLOSED_LOOP || event == E_ARM);
    if (after == SEA_STATE_CLOSED_LOOP && before != SEA_STATE_ARMED && before != after) {
        violation("stimulation goes on without a fresh handshake");
    }
    if (after == SEA_STATE_CLOSED_LOOP && core->now_us >= world.lease_until_us) {
        violation("CLOSED_LOOP past the lease");
    }
    if (event == E_FLIP && after != SEA_STATE_SAFE_OFF) {
        violation("changed memory did not lead to SAFE_OFF");
    }
    if (event == E_STOP && (after == SEA_STATE_CLOSED_LOOP || after == SEA_STATE_ARMED || after == SEA_STATE_FALLBACK)) {
        violation("STOP did not stop");
    }
    if (event >= E_DEAD && event <= E_OPEN && pulses_now > 0 && (after != SEA_STATE_SAFE_OFF || pulses_now > 3)) {
        violation("a fault of the output did not lead to SAFE_OFF");
    }
    if (core->envelope.set_pA > reached(core->now_us) ||
        (core->envelope.set_pA + 1000u * (core->now_us - before_us) < before_set_pA && core->envelope.set_pA != 0)) {
        violation("the set point moved faster than the ramp");
    }
    if ((after == SEA_STATE_IDLE || after == SEA_STATE_SAFE_OFF) && core->envelope.set_pA != 0) {
        violation("a set point where nothing is given");
    }
}

static uint64_t ahead(uint64_t time_us)
{
    return time_us - world.core.now_us; /* modulo 2^64: the past is negative */
}

static void put_decision(canon_t *c, size_t i, const sea_decision_t *decision)
{
    if (decision->id == 0) {
        return;
    }
    c->decisions[i].held = 1;
    c->decisions[i].start_us = ahead(decision->start_us);
    c->decisions[i].lease_until_us = ahead(decision->lease_until_us);
    memcpy(&c->decisions[i].mask, decision->mask, sizeof c->decisions[i].mask);
    c->decisions[i].lease_us = decision->lease_us;
    c->decisions[i].period_us = decision->period_us;
    c->decisions[i].amplitude_uA = decision->amplitude_uA;
    c->decisions[i].next = decision->next;
    c->decisions[i].slots = decision->slots;
    c->decisions[i].width_us = decision->width_us;
    if (decision->next >= decision->slots || decision->mask[0] == 0) { /* no pulse is left in it: only its lease counts */
        c->decisions[i].start_us = 0;
        c->decisions[i].next = c->decisions[i].slots = 0;
        c->decisions[i].mask = 0;
    }
}

static digest_t digest(void)
{
    const sea_core_t *core = &world.core;
    static canon_t c;
    memset(&c, 0, sizeof c);
    c.set_pA = core->envelope.set_pA;
    c.ramp_us = ahead(core->envelope.ramp_us);
    const uint64_t pause = core->now_us - core->last_pulse_us;
    c.last_pulse_us = !core->pulsed || pause > PAST_US ? PAST_US : pause;
    c.pulsed = core->pulsed;
    for (size_t i = 0; i <= SEA_WINDOW_BUCKETS; i++) {
        const sea_bucket_t *bucket = &core->envelope.window.buckets[i];
        c.buckets[i].energy_aJ = bucket->energy_aJ;
        c.buckets[i].toggles = bucket->toggles;
        c.buckets[i].overruns = bucket->overruns;
    }
    c.window_us = ahead(core->envelope.window.end_us);
    c.fixed_us = core->state == SEA_STATE_FALLBACK && config.fallback.amplitude_uA > 0 ? ahead(core->fixed_us) : 0;
    c.lease_us = core->state == SEA_STATE_CLOSED_LOOP ? ahead(world.lease_until_us) : 0;
    put_decision(&c, 0, &core->current);
    put_decision(&c, 1, &core->queued);
    c.impedance_ohm = core->envelope.impedance_ohm;
    c.refusal = core->refusal;
    c.state = core->state;
    c.armable = core->armable;
    c.session = core->session != 0;
    c.sensing_bad = core->sensing_bad;
    c.not_finite = core->not_finite;
    c.late = core->late;
    c.corrupt = core->corrupt;
    c.shaken = world.shaken;
    c.grounded = world.grounded;
    const uint64_t *words = (const uint64_t *)(const void *)&c;
    digest_t d = {UINT64_C(0x9e3779b97f4a7c15), UINT64_C(0xc2b2ae3d27d4eb4f)};
    for (size_t i = 0; i < sizeof c / 8u; i++) {
        d.low = (d.low ^ words[i]) * UINT64_C(0xff51afd7ed558ccd);
        d.low ^= d.low >> 32;
        d.high = (d.high + words[i]) * UINT64_C(0xc4ceb9fe1a85ec53);
        d.high ^= d.high >> 29;
    }
    d.low |= d.low == 0; /* 0: a free place */
    return d;
}

/* ---- breadth-first, with a hash of the visited states */

#define PLACES (UINT32_C(1) << 22)
#define STATES_MAX (PLACES / 2u)

static digest_t *visited;
static uint32_t states;

static bool is_new(digest_t d)
{
    uint32_t place = (uint32_t)d.low & (PLACES - 1u);
    while (visited[place].low != 0) {
        if (visited[place].low == d.low && visited[place].high == d.high) {
            return false;
        }
        place = (place + 1u) & (PLACES - 1u);
    }
    visited[place] = d;
    return true;
}

typedef struct {
    node_t *nodes;
    uint32_t *numbers;
    size_t count, room;
} level_t;

static void push(level_t *level, uint32_t number)
{
    if (level->count == level->room) {
        level->room = level->room == 0 ? 1024 : 2 * level->room;
        level->nodes = realloc(level->nodes, level->room * sizeof *level->nodes);
        level->numbers = realloc(level->numbers, level->room * sizeof *level->numbers);
        if (level->nodes == NULL || level->numbers == NULL) {
            exit(2);
        }
    }
    level->nodes[level->count] = world;
    level->numbers[level->count++] = number;
}

static void reach(level_t *level)
{
    if (!is_new(digest())) {
        return;
    }
    if (states == STATES_MAX) {
        printf("more than %u states: not closed\n", STATES_MAX);
        exit(2);
    }
    parents[states] = here;
    via[states] = event;
    safe_off += world.core.state == SEA_STATE_SAFE_OFF;
    push(level, states++);
}

static void expand(const node_t *from, uint32_t number, level_t *next)
{
    here = number;
    for (event = 0; event < EVENTS; event++) {
        world = *from;
        before_us = world.core.now_us;
        before_set_pA = world.core.envelope.set_pA;
        pulses_now = 0;
        happen();
        transitions++;
        judge(from->core.state);
        reach(next);
    }
}

int main(int argc, char **argv)
{
    level_t level = {0};
    level_t next = {0};
    unsigned depth = 0;
    (void)argv;
    visited = calloc(PLACES, sizeof *visited);
    parents = calloc(STATES_MAX, sizeof *parents);
    via = calloc(STATES_MAX, sizeof *via);
    if (visited == NULL || parents == NULL || via == NULL) {
        return 2;
    }
    config = (sea_config_t){.simulated_output = true,
                            .boot_count = 1,
                            .limits = {LIMIT_UA, 60000, SEA_V_MAX_MV, 1, SEA_TOGGLES_MAX},
                            .policy = &POLICY};
    if (argc > 1) {
        config.fallback = (sea_fixed_t){.amplitude_uA = FIXED_UA, .width_us = 60, .period_us = 100000};
    }
    if (sea_core_init(&world.core, &config, &port) != SEA_OK) {
        return 2;
    }
    (void)sea_core_tick(&world.core, 0);
    reach(&level);
    for (; level.count > 0; depth++) {
        next.count = 0;
        for (size_t i = 0; i < level.count; i++) {
            expand(&level.nodes[i], level.numbers[i], &next);
        }
        const level_t swap = level;
        level = next;
        next = swap;
    }
    printf("closed: %u states (%" PRIu64 " in SAFE_OFF), %" PRIu64 " transitions by %u events, depth %u, %" PRIu64
           " pulses judged, no violation\n",
           states, safe_off, transitions, EVENTS, depth, pulses);
    return 0;
}
