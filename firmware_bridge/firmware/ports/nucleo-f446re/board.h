/* ST Nucleo-F446RE: STM32F446RE (Cortex-M4F) at 72 MHz. NOT run on the device, see README.md. */
#ifndef BOARD_H
#define BOARD_H
#define BOARD_CPU_HZ 72000000u
#define BOARD_IRQS 97
#define BOARD_ELECTRODE 0
#define BOARD_WAKE_IRQ(uart) 38u /* USART2 */
#endif
