/* Device time: the free-running counter made 64 bits wide. Interrupts that come late or get lost cost nothing. */
#include "cpu.h"
#include "hal.h"
#include "run.h"

static uint32_t last_us;
static uint64_t total_us;

void clock_start(void)
{
    last_us = hal_counter_us();
    total_us = 0;
}

uint64_t clock_us(void)
{
    const uint32_t before = irq_off();
    const uint32_t now_us = hal_counter_us();
    total_us += now_us - last_us; /* right while this is called once in 2^32 us; the tick comes each ms */
    last_us = now_us;
    const uint64_t result = total_us;
    irq_restore(before);
    return result;
}
