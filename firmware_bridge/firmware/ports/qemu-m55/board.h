/* mps3-an547: Cortex-M55 at 32 MHz (application note AN547), secure addresses throughout. */
#ifndef BOARD_H
#define BOARD_H

#define BOARD_CPU_HZ 32000000u
#define BOARD_IRQS 96
#define BOARD_ELECTRODE 1
#define BOARD_UART 0x59303000u
#define BOARD_UART_IRQ 33u
#define BOARD_FPGAIO 0x59302000u
#define BOARD_FPGAIO_HZ 20000000u /* measured in QEMU 7.2: device time against host time */
#define BOARD_WATCHDOG 0x5802E000u /* the subsystem's, on the slow clock */
#define BOARD_WATCHDOG_HZ 32768u
#define BOARD_WAKE_IRQ(uart) (BOARD_UART_IRQ + 2u * (uart))

#endif
