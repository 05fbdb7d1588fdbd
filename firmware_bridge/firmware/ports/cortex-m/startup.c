/* Vectors and reset. Everything external goes to hal_interrupt with its number. */
#include "cpu.h"
#include "hal.h"
#include "run.h"

extern uint32_t image_stack_top[];
extern uint32_t image_data_start[], image_data_end[], image_data_load[];
extern uint32_t image_bss_start[], image_bss_end[];

static void fault_entry(void)
{
    for (;;) { /* the watchdog bites */
    }
}

static void external_entry(void)
{
    uint32_t number;
    __asm volatile("mrs %0, ipsr" : "=r"(number));
    hal_interrupt((number & 0x1ffu) - 16u);
}

void reset_entry(void);

__attribute__((noreturn)) void reset_entry(void)
{
    SCB_CPACR |= 0xFu << 20; /* floating point and vectors on */
    __asm volatile("dsb\n\tisb" ::: "memory");
    for (uint32_t *to = image_data_start, *from = image_data_load; to < image_data_end;) {
        *to++ = *from++;
    }
    for (uint32_t *to = image_bss_start; to < image_bss_end;) {
        *to++ = 0;
    }
    board_main();
}

typedef union {
    void (*entry)(void);
    const void *stack;
} vector_t;

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wpedantic" /* ranges of elements */
extern const vector_t image_vectors[16 + BOARD_IRQS];
__attribute__((section(".vectors"), used)) const vector_t image_vectors[16 + BOARD_IRQS] = {
    [0] = {.stack = image_stack_top},
    [1] = {.entry = reset_entry},
    [2] = {.entry = nmi_entry},
    [3 ... 14] = {.entry = fault_entry},
    [15] = {.entry = tick_entry},
    [16 ... 15 + BOARD_IRQS] = {.entry = external_entry},
};
#pragma GCC diagnostic pop

const uint8_t *image_bytes(size_t *size)
{
    *size = (size_t)((uintptr_t)image_data_load - (uintptr_t)image_vectors) +
            (size_t)((uintptr_t)image_data_end - (uintptr_t)image_data_start);
    return (const uint8_t *)image_vectors;
}
