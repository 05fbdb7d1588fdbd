#ifndef RUN_H
#define RUN_H

#include <stddef.h>
#include <stdint.h>

/* Runs the board: never returns. */
__attribute__((noreturn)) void board_main(void);

/* Code and constants as they stand in flash, from the vectors to the initial values of variables. */
const uint8_t *image_bytes(size_t *size);

void nmi_entry(void);  /* the watchdog is about to reset */
void tick_entry(void); /* SysTick */

/* Device time: microseconds since this start. Safe everywhere. */
uint64_t clock_us(void);
void clock_start(void);

#endif
