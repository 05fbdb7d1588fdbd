/* The board's life: the tick gives pulses, the main loop talks and decides.
 *
 * The tick (SysTick) runs the core whenever something is due, also while the main loop decides for many milliseconds.
 * The main loop works on the core with the tick masked, briefly. UART interrupts are never masked for long. */
#include "cpu.h"
#include "hal.h"
#include "image.h"
#include "key.h"
#include "run.h"
#include "uart.h"
#if BOARD_ELECTRODE
#include "bench.h"
#endif

#define TICK_MAX_US 1000u /* the tick comes at least so often: the watchdog's proof that it lives */
#define TICK_MIN_US 10u
#define MAGIC 0x5EADB5u
#define PATROL_PIECES 250u /* a turn of the patrol, one each tick seen: a flipped bit is found within two turns, 0.5 s */

static __attribute__((section(".noinit"))) hal_kept_t kept;

static sea_core_t core;
static sea_config_t config;
static sea_patrol_t patrol; /* over the image */
static volatile uint32_t ticks;
static uint64_t tick_us; /* when the next one comes */
#if BOARD_ELECTRODE
static bench_t bench;
#endif

/* The next tick when the core has something to do, else in a millisecond. With the tick masked, or from it. */
static void arm_tick(void)
{
    const uint64_t now_us = clock_us();
    const uint64_t due_us = sea_core_next_us(&core);
    uint32_t wait_us = TICK_MAX_US;
    if (due_us < now_us + TICK_MAX_US) {
        wait_us = due_us > now_us + TICK_MIN_US ? (uint32_t)(due_us - now_us) : TICK_MIN_US;
    }
    tick_us = now_us + wait_us;
    SYST_RVR = wait_us * (BOARD_CPU_HZ / 1000000u) - 1u;
    SYST_CVR = 0;
}

/* After an order: the core may have something to do earlier. Never later, or a busy link would starve the tick. */
static void advance_tick(void)
{
    if (sea_core_next_us(&core) < tick_us) {
        arm_tick();
    }
}

static void trace(void)
{
#if BOARD_ELECTRODE
    bench_trace(&bench);
#endif
}

void tick_entry(void)
{
    ticks++;
    (void)sea_core_tick(&core, clock_us());
    trace();
    arm_tick();
}

/* The watchdog's warning: this firmware hangs. Ground the output, say why, and let it bite. */
void nmi_entry(void)
{
    kept.cause = SEA_CAUSE_WATCHDOG;
#if BOARD_ELECTRODE
    bench_ground(&bench, true);
#else
    hal_ground(true);
#endif
    for (;;) {
    }
}

static void send_link(void *ctx, const uint8_t *bytes, size_t size)
{
    (void)ctx;
    (void)uart_write(HAL_LINK, bytes, size); /* a host that does not read loses what it misses, frame by frame */
}

#if BOARD_ELECTRODE
static bool send_bench(void *ctx, const uint8_t *bytes, size_t size)
{
    (void)ctx;
    return uart_write(HAL_ELECTRODE, bytes, size);
}

static uint64_t bench_now(void *ctx)
{
    (void)ctx;
    return clock_us();
}

#ifdef SEA_TEST_BUILD
static void hang(void *ctx, bool deaf)
{
    (void)ctx;
    if (deaf) {
        (void)irq_off();
    }
    tick_on();
    for (;;) {
    }
}
static void flip(void *ctx, const void *at, unsigned bit)
{
    volatile uint8_t *const byte = (volatile uint8_t *)(uintptr_t)at; /* what emulates flash can be written to */
    (void)ctx;
    *byte = (uint8_t)(*byte ^ (1u << bit));
}
#define HANG hang
#define FLIP flip
#else
#define HANG NULL
#define FLIP NULL
#endif

static const bench_port_t bench_port = {.send = send_bench, .now_us = bench_now, .hang = HANG, .flip = FLIP};
static const sea_port_t port = {.ctx = &bench, .tx = send_link, .stimulate = bench_stimulate, .ground = bench_ground};

static void read_bench(bool ticked)
{
    uint8_t bytes[64];
    size_t size;
    while ((size = uart_read(HAL_ELECTRODE, bytes, sizeof bytes)) > 0) {
        tick_off();
        bench_feed(&bench, bytes, size);
        tick_on();
    }
    if (!ticked) {
        return;
    }
    tick_off();
    if (bench.waiting && clock_us() >= bench.waiting_us) {
        (void)sea_core_tick(&core, clock_us()); /* what was due by then is sent first */
        bench_poll(&bench);
    }
    tick_on();
}
#else
static bool stimulate(void *ctx, const sea_pulse_t *pulse, sea_given_t *given)
{
    (void)ctx;
    return hal_stimulate(pulse, given);
}

static void ground(void *ctx, bool grounded)
{
    (void)ctx;
    hal_ground(grounded);
}

static const sea_port_t port = {.tx = send_link, .stimulate = stimulate, .ground = ground};
#endif

static void read_link(void)
{
    static uint32_t told; /* bytes that the link's receiver had lost when the core was last told */
    uint8_t bytes[64]; /* little, so that the tick is masked briefly */
    size_t size;
    if (uart_overruns(HAL_LINK) != told) {
        told = uart_overruns(HAL_LINK);
        tick_off();
        sea_core_overrun(&core);
        trace();
        tick_on();
    }
    while ((size = uart_read(HAL_LINK, bytes, sizeof bytes)) > 0) {
        tick_off();
        (void)sea_core_feed(&core, bytes, size, clock_us());
        trace();
        advance_tick();
        tick_on();
    }
}

static void decide(void)
{
#ifdef SEA_WITH_POLICY
    const int8_t *observation;
    tick_off();
    const bool asked = sea_core_to_decide(&core, &observation);
    tick_on();
    if (asked) {
        config.policy->infer(observation, sea_core_logits(&core)); /* long; the tick goes on */
        tick_off();
        (void)sea_core_decided(&core, sea_core_logits(&core), clock_us());
        trace();
        advance_tick();
        tick_on();
    }
#endif
}

/* Once a tick: the tick goes on meanwhile. */
static void look_at_memory(void)
{
    if (!sea_patrol(&patrol, (patrol.size / PATROL_PIECES + 4u) & ~(size_t)3u)) {
        tick_off();
        sea_core_corrupt(&core);
        trace();
        tick_on();
    }
}

#ifndef SEA_STEADY
static bool has_work(void)
{
#if BOARD_ELECTRODE
    if (uart_has_bytes(HAL_ELECTRODE)) {
        return true;
    }
#endif
    return uart_has_bytes(HAL_LINK);
}
#endif

/* Until an interrupt. Not where time is counted by instructions (QEMU -icount): a core that sleeps gets its time from the
 * emulating machine, with all its stutter. */
static void sleep(void)
{
#ifndef SEA_STEADY
    /* With interrupts off nothing can come between looking and sleeping; what is pending wakes all the same. */
    (void)irq_off();
    if (!has_work()) {
        __asm volatile("dsb\n\twfi" ::: "memory");
    }
    irq_restore(0);
#endif
}

static uint8_t reset_cause(void)
{
    uint32_t cause = SEA_CAUSE_POWER_ON;
    if (kept.magic == MAGIC) {
        cause = kept.cause != 0 ? kept.cause : SEA_CAUSE_RESET;
        kept.resets++;
    } else {
        kept.magic = MAGIC;
        kept.resets = 0;
    }
    if (hal_reset_by_watchdog()) {
        cause = SEA_CAUSE_WATCHDOG;
    }
    kept.cause = 0;
    return (uint8_t)cause;
}

__attribute__((noreturn)) void board_main(void)
{
    hal_start();
    clock_start();
    image_config(&config);
    config.boot_cause = reset_cause();
    key_config(&key_section, hal_start_count(kept.resets), &config);
#if BOARD_ELECTRODE
    bench_init(&bench, &bench_port, &core);
#endif
    (void)sea_core_init(&core, &config, &port);
    SCB_SHPR3_SYSTICK = PRIORITY_TICK;
    arm_tick();
    SYST_CSR = 7; /* processor clock, interrupt, on */
    size_t size;
    const uint8_t *const image = image_bytes(&size);
    sea_patrol_start(&patrol, image, size);
    hal_watchdog_start();
    uint32_t seen = 0;
    for (;;) {
        read_link();
        decide();
        const bool ticked = ticks != seen;
#if BOARD_ELECTRODE
        read_bench(ticked);
#endif
        if (ticked) { /* this loop lives, and so does the tick */
            seen = ticks;
            hal_watchdog_kick();
            look_at_memory();
        }
        sleep();
    }
}
