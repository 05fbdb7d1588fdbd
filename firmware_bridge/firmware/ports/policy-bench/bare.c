/* The policy alone on an emulated core: observations come from a file through semihosting, logits go back to one. No
 * UART, no firmware. SysTick counts; under QEMU's -icount it counts instructions. */
#include "bench_file.h"
#include "cpu.h"
#include "hal.h"
#include "run.h"

#define SYS_OPEN 0x01u
#define SYS_WRITE 0x05u
#define SYS_READ 0x06u
#define SYS_EXIT_EXTENDED 0x20u
#define STOPPED_APPLICATION_EXIT 0x20026u
#define SYST_MAX 0xFFFFFFu
#define PAINT 0xA5u

extern uint32_t image_stack_low[];

static volatile uint32_t wraps;

void tick_entry(void)
{
    wraps++;
}

void nmi_entry(void)
{
}

void hal_interrupt(unsigned irq)
{
    (void)irq;
}

static int32_t semihost(uint32_t operation, const void *block)
{
    register uint32_t r0 __asm("r0") = operation;
    register const void *r1 __asm("r1") = block;
    __asm volatile("bkpt 0xAB" : "+r"(r0) : "r"(r1) : "memory");
    return (int32_t)r0;
}

__attribute__((noreturn)) static void leave(uint32_t code)
{
    const uint32_t block[2] = {STOPPED_APPLICATION_EXIT, code};
    for (;;) {
        (void)semihost(SYS_EXIT_EXTENDED, block);
    }
}

static uint32_t open_file(const char *name, uint32_t size, uint32_t mode)
{
    const uint32_t block[3] = {(uint32_t)(uintptr_t)name, mode, size};
    const int32_t handle = semihost(SYS_OPEN, block);
    if (handle < 0) {
        leave(BENCH_EXIT_FILE);
    }
    return (uint32_t)handle;
}

static void move(uint32_t operation, uint32_t handle, const void *bytes, uint32_t size)
{
    const uint32_t block[3] = {handle, (uint32_t)(uintptr_t)bytes, size};
    if (size > 0 && semihost(operation, block) != 0) { /* bytes left undone */
        leave(BENCH_EXIT_FILE);
    }
}

static uint64_t ticks(void)
{
    const uint32_t seen = wraps;
    const uint32_t left = SYST_CVR;
    __asm volatile("isb" ::: "memory"); /* a wrap at this moment is taken here */
    return wraps == seen ? ((uint64_t)seen << 24) + (SYST_MAX - left) : ((uint64_t)wraps << 24) + (SYST_MAX - SYST_CVR);
}

static void nothing(const int8_t *observation, int32_t *logits)
{
    (void)observation;
    (void)logits;
}

typedef void (*infer_t)(const int8_t *observation, int32_t *logits);

__attribute__((noinline)) static uint64_t count(infer_t infer, const int8_t *observation, int32_t *logits)
{
    const uint64_t before = ticks();
    infer(observation, logits);
    return ticks() - before;
}

/* Paints the free stack, decides, and looks how far down the paint is gone. Interrupts off: none of it is theirs. */
__attribute__((noinline)) static uint32_t stack_of(infer_t infer, const int8_t *observation, int32_t *logits)
{
    volatile uint8_t *const low = (volatile uint8_t *)image_stack_low;
    uintptr_t here;
    __asm volatile("mov %0, sp" : "=r"(here));
    for (volatile uint8_t *at = low; (uintptr_t)at < here; at++) {
        *at = PAINT;
    }
    infer(observation, logits);
    volatile uint8_t *at = low;
    while ((uintptr_t)at < here && *at == PAINT) {
        at++;
    }
    return (uint32_t)(here - (uintptr_t)at);
}

__attribute__((noreturn)) void board_main(void)
{
    static int8_t observation[SEA_POLICY_MAX_OBS];
    static int32_t logits[2u * SEA_POLICY_MAX_SLOTS];
    const sea_policy_t *policy = &SEA_POLICY;
    volatile infer_t idle = nothing; /* not to be seen through */
    const uint32_t in = open_file("bench.in", 8, 1);
    const uint32_t out = open_file("bench.out", 9, 5);
    const uint32_t cost_file = open_file("bench.cost", 10, 5);
    bench_head_t head;
    move(SYS_READ, in, &head, sizeof head);
    if (head.n_obs != policy->n_obs || policy->n_obs > SEA_POLICY_MAX_OBS || policy->slots > SEA_POLICY_MAX_SLOTS) {
        leave(BENCH_EXIT_SHAPE);
    }
    (void)irq_off();
    const bench_cost_t cost = {policy->n_obs, policy->slots, stack_of(policy->infer, observation, logits)};
    move(SYS_WRITE, cost_file, &cost, sizeof cost);
    SYST_RVR = SYST_MAX;
    SYST_CVR = 0;
    SYST_CSR = 7;
    irq_restore(0);
    for (uint32_t i = 0; i < head.count; i++) {
        if (i == 0 || (head.reset_every != 0 && i % head.reset_every == 0)) {
            policy->reset();
        }
        move(SYS_READ, in, observation, policy->n_obs);
        if (i < head.counted) {
            const uint64_t spent[2] = {count(policy->infer, observation, logits), count(idle, observation, logits)};
            move(SYS_WRITE, cost_file, spent, sizeof spent);
        } else {
            policy->infer(observation, logits);
        }
        move(SYS_WRITE, out, logits, 8u * policy->slots);
    }
    leave(0);
}
