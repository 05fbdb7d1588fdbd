/* The boards of Arm's MPS2 and MPS3 (application notes AN386, AN500, AN547): CMSDK APB UART and watchdog, FPGAIO counter.
 * Run in QEMU, whose pins go nowhere: the electrode is virtual. */
#include "cpu.h"
#include "hal.h"

#define UART(n) (BOARD_UART + 0x1000u * (n))
#define UART_DATA(n) CPU_REG(UART(n) + 0x00u)
#define UART_STATE(n) CPU_REG(UART(n) + 0x04u)   /* 1 transmitter full, 2 receiver full */
#define UART_CTRL(n) CPU_REG(UART(n) + 0x08u)    /* 1 transmit, 2 receive, 4 and 8 their interrupts */
#define UART_INT(n) CPU_REG(UART(n) + 0x0Cu)     /* 1 transmit, 2 receive; write to clear */
#define UART_BAUDDIV(n) CPU_REG(UART(n) + 0x10u)
#define BAUD 921600u

#define FPGAIO_COUNTER CPU_REG(BOARD_FPGAIO + 0x18u)
#define FPGAIO_PRESCALE CPU_REG(BOARD_FPGAIO + 0x1Cu)

#define WDOG_LOAD CPU_REG(BOARD_WATCHDOG + 0x000u)
#define WDOG_CONTROL CPU_REG(BOARD_WATCHDOG + 0x008u) /* 1 interrupt (NMI) at the first zero, 2 reset at the second */
#define WDOG_INTCLR CPU_REG(BOARD_WATCHDOG + 0x00Cu)  /* also loads again */
#define WDOG_LOCK CPU_REG(BOARD_WATCHDOG + 0xC00u)
#define WDOG_KEY 0x1ACCE551u

/* Written by the launcher (-device loader): the number of this power-on; 0 with a key, whose section numbers it. A real board
 * counts in flash. */
static __attribute__((section(".launcher"), used)) volatile uint32_t power_on_count;

void hal_start(void)
{
    FPGAIO_PRESCALE = BOARD_FPGAIO_HZ / 1000000u - 1u; /* the counter counts microseconds */
    for (unsigned uart = 0; uart < HAL_UARTS; uart++) {
        UART_BAUDDIV(uart) = BOARD_CPU_HZ / BAUD;
        UART_CTRL(uart) = 0xFu;
        nvic_enable(BOARD_UART_IRQ + 2u * uart);
        nvic_enable(BOARD_UART_IRQ + 2u * uart + 1u);
    }
}

uint32_t hal_counter_us(void)
{
    return FPGAIO_COUNTER;
}

bool hal_uart_get(unsigned uart, uint8_t *byte)
{
    if ((UART_STATE(uart) & 2u) == 0) {
        return false;
    }
    *byte = (uint8_t)UART_DATA(uart);
    return true;
}

bool hal_uart_put(unsigned uart, uint8_t byte)
{
    if ((UART_STATE(uart) & 1u) != 0) {
        return false; /* the transmit interrupt comes when there is room */
    }
    UART_DATA(uart) = byte;
    return true;
}

void hal_interrupt(unsigned irq)
{
    const unsigned uart = (irq - BOARD_UART_IRQ) / 2u;
    if (uart < HAL_UARTS) {
        UART_INT(uart) = 3u; /* before draining: what comes from here on interrupts again */
        uart_service(uart);
    }
}

void hal_watchdog_start(void)
{
    WDOG_LOCK = WDOG_KEY;
    WDOG_LOAD = BOARD_WATCHDOG_HZ / 5u; /* 200 ms to NMI, 200 ms more to the reset */
    WDOG_CONTROL = 3u;
}

void hal_watchdog_kick(void)
{
    WDOG_INTCLR = 1u;
}

uint32_t hal_start_count(uint32_t resets)
{
    return power_on_count + resets;
}

bool hal_reset_by_watchdog(void)
{
    return false; /* NMI left the word */
}
