#include "uart.h"

#include "cpu.h"
#include "hal.h"

static ring_t incoming[HAL_UARTS];
static ring_t outgoing[HAL_UARTS];
static volatile uint32_t overruns[HAL_UARTS];

static inline void barrier(void)
{
    __asm volatile("dmb" ::: "memory"); /* the bytes before the counter that announces them */
}

bool uart_write(unsigned uart, const uint8_t *bytes, size_t size)
{
    ring_t *ring = &outgoing[uart];
    const uint32_t at = ring->written;
    if (size > UART_RING - (at - ring->read)) {
        return false;
    }
    for (uint32_t i = 0; i < size; i++) {
        ring->bytes[(at + i) % UART_RING] = bytes[i];
    }
    barrier();
    ring->written = at + (uint32_t)size;
    nvic_pend(BOARD_WAKE_IRQ(uart)); /* only that interrupt hands bytes to the UART */
    return true;
}

size_t uart_read(unsigned uart, uint8_t *bytes, size_t size)
{
    ring_t *ring = &incoming[uart];
    const uint32_t at = ring->read;
    const uint32_t there = ring->written - at;
    const uint32_t taken = there < size ? there : (uint32_t)size;
    barrier();
    for (uint32_t i = 0; i < taken; i++) {
        bytes[i] = ring->bytes[(at + i) % UART_RING];
    }
    barrier();
    ring->read = at + taken;
    return taken;
}

bool uart_has_bytes(unsigned uart)
{
    return incoming[uart].written != incoming[uart].read;
}

uint32_t uart_overruns(unsigned uart)
{
    return overruns[uart];
}

void uart_service(unsigned uart)
{
    ring_t *in = &incoming[uart];
    ring_t *out = &outgoing[uart];
    uint8_t byte;
    while (hal_uart_get(uart, &byte)) {
        if (in->written - in->read == UART_RING) {
            overruns[uart]++;
            continue;
        }
        in->bytes[in->written % UART_RING] = byte;
        barrier();
        in->written++;
    }
    while (out->read != out->written) {
        if (!hal_uart_put(uart, out->bytes[out->read % UART_RING])) {
            return;
        }
        barrier();
        out->read++;
    }
}
