/* The map that mps2-an386 and mps2-an500 share (application notes AN386, AN500): 25 MHz. */
#ifndef MPS2_H
#define MPS2_H

#define BOARD_CPU_HZ 25000000u
#define BOARD_IRQS 32
#define BOARD_ELECTRODE 1
#define BOARD_UART 0x40004000u /* UART0; UART1 follows 0x1000 later */
#define BOARD_UART_IRQ 0u      /* receive of UART0, transmit, receive of UART1, transmit */
#define BOARD_FPGAIO 0x40028000u
#define BOARD_FPGAIO_HZ 25000000u
#define BOARD_WATCHDOG 0x40008000u
#define BOARD_WATCHDOG_HZ 25000000u
#define BOARD_WAKE_IRQ(uart) (BOARD_UART_IRQ + 2u * (uart))

#endif
