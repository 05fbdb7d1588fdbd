/* What the folder of a board provides, and what it may call. Everything else is the same on every Cortex-M.
 *
 * board.h of that folder says:  BOARD_CPU_HZ     clock of SysTick
 *                               BOARD_IRQS       external interrupts in the vector table
 *                               BOARD_ELECTRODE  1: virtual electrode, which speaks on HAL_ELECTRODE; 0: a real output
 *                               BOARD_WAKE_IRQ(uart)  an interrupt of that UART, raised by hand when there are bytes to send
 */
#ifndef HAL_H
#define HAL_H

#include "board.h"
#include "sea_core.h"

enum { HAL_LINK, HAL_ELECTRODE, HAL_UARTS = HAL_ELECTRODE + BOARD_ELECTRODE };

/* ---- provided by the board */

/* Clocks, pins, UARTs with their interrupts, a free-running counter; the output safe. Before the watchdog. */
void hal_start(void);

/* Free-running microseconds; wraps at 2^32. It must not be made of interrupts, which can be lost. */
uint32_t hal_counter_us(void);

/* A byte that has come; false: none. Only from uart_service. */
bool hal_uart_get(unsigned uart, uint8_t *byte);

/* Hands over a byte; false: not now. While this says false, a transmit interrupt must follow. Only from uart_service. */
bool hal_uart_put(unsigned uart, uint8_t byte);

/* Any external interrupt; that of a UART calls uart_service. */
void hal_interrupt(unsigned irq);

/* The watchdog bites 200 to 500 ms after the last kick; it first raises NMI, if it can. */
void hal_watchdog_start(void);
void hal_watchdog_kick(void);

/* What survives a reset. */
typedef struct {
    uint32_t magic;
    uint32_t resets; /* since power came */
    uint32_t cause;  /* SEA_CAUSE_... left behind by what led to the reset */
} hal_kept_t;

/* The number of this start: never one of an earlier start, whether by power or by reset, since the key section was written.
 * Called once a start. */
uint32_t hal_start_count(uint32_t resets);
bool hal_reset_by_watchdog(void); /* the hardware's own flag; false where it has none */

/* Only a real output (BOARD_ELECTRODE 0): one whole biphasic pulse by a hardware one-shot, see sea_port_t. */
bool hal_stimulate(const sea_pulse_t *pulse, sea_given_t *given);
void hal_ground(bool grounded);

/* ---- provided for the board */

/* Moves bytes between a UART and its rings; from that UART's interrupt alone. */
void uart_service(unsigned uart);

#endif
