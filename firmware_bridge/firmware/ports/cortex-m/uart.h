/* Ring buffers between the main loop (and the tick) and the UARTs' interrupts. One reader and one writer each: whoever
 * writes to a transmit ring keeps the tick masked or is the tick. */
#ifndef UART_H
#define UART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UART_RING 4096u /* bytes, a power of two: 44 ms at 921600 baud */

typedef struct {
    volatile uint32_t written;
    volatile uint32_t read;
    uint8_t bytes[UART_RING];
} ring_t;

/* Puts a whole block or nothing; false: there is no room. */
bool uart_write(unsigned uart, const uint8_t *bytes, size_t size);

/* What has come, at most `size` bytes. */
size_t uart_read(unsigned uart, uint8_t *bytes, size_t size);

bool uart_has_bytes(unsigned uart);

/* Bytes that came and found the ring full. */
uint32_t uart_overruns(unsigned uart);

#endif
