/* The whole core under libFuzzer. Input: how the board is built, from where it starts (power-on, armed, or in closed loop
 * for a while), then steps of 12 bytes: the choices of world_step; longer ones go on with a generator seeded by them.
 * So a change of one step leaves the others as they are, and frames get past CRC and tag, since the host makes them. */
#define WORLD_ABORTS
#include "../firmware/host.h"

#define STEP 12u
#define STARTS 3u

static world_t starts[VARIANTS][STARTS];

static void start_choices(world_t *w, const uint8_t *bytes, size_t size)
{
    uint64_t seed = UINT64_C(88172645463325252);
    for (size_t i = 0; i < size; i++) {
        seed = (seed ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    w->choices = (choices_t){.bytes = bytes, .left = size, .random = seed | 1u};
}

static void say(world_t *w, uint8_t type, const uint8_t *payload, size_t size)
{
    uint8_t bytes[SEA_FRAME_MAX];
    const sea_frame_t frame = {.version = SEA_PROTOCOL, .type = type, .sequence = ++w->sequence, .session = w->session,
                               .payload = payload, .size = size};
    const size_t encoded = host_encode(w, bytes, &frame, false);
    (void)sea_core_feed(&w->core, bytes, encoded, w->now_us);
}

/* The choices that lead to a right frame: no oddity, no damage. */
static void prepare(world_t *w, unsigned start)
{
    static const uint8_t plain[64] = {[0] = 7};
    uint8_t payload[SEA_PAYLOAD_MAX];
    if (start > 0) {
        start_choices(w, plain, sizeof plain);
        (void)sea_core_tick(&w->core, 0);
        const size_t size = hello(w, payload);
        w->hello.features = 0;
        sea_pack_hello(payload, &w->hello);
        say(w, SEA_HELLO, payload, size);
        start_choices(w, plain, sizeof plain);
        const size_t arm_size = arm(w, payload);
        say(w, SEA_ARM, payload, arm_size);
        if (w->core.state != SEA_STATE_ARMED) {
            world_violation("the start is not ARMED");
        }
    }
    for (uint32_t i = 1; start > 1 && i <= 10; i++) { /* 2 s of closed loop */
        const sea_msg_set_stim_t m = {.decision_id = i, .slot_period_us = 10000, .slots = 20, .amplitude_uA = 2000,
                                      .width_us = 60, .lease_ms = 300, .mask = {255, 255, 15}};
        w->asked[(w->sequence + 1u) % ASKED].sequence = w->sequence + 1u;
        w->asked[(w->sequence + 1u) % ASKED].lease_us = 300000;
        sea_pack_set_stim(payload, &m);
        say(w, SEA_SET_STIM, payload, SEA_SET_STIM_SIZE);
        for (unsigned slot = 0; slot < 20; slot++) {
            w->now_us += 10000;
            (void)sea_core_tick(&w->core, w->now_us);
            judge_after(&w->judge, sea_core_state(&w->core));
        }
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    for (unsigned variant = 0; variant < VARIANTS; variant++) {
        for (unsigned start = 0; start < STARTS; start++) {
            memset(&world, 0, sizeof world);
            power_on(&world, variant);
            prepare(&world, start);
            starts[variant][start] = world;
        }
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) {
        return 0;
    }
    world = starts[data[0] % VARIANTS][data[1] % STARTS];
    for (size_t at = 2; at + STEP <= size; at += STEP) {
        start_choices(&world, data + at, STEP);
        world_step(&world);
    }
    return 0;
}
