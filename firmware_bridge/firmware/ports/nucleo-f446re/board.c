/* Registers: ST reference manual RM0390. Pins: UM1724. NOT run on the device. Research use only, not for human use. */
#include "cpu.h"
#include "hal.h"

#define RCC(offset) CPU_REG(0x40023800u + (offset))    /* 0 CR, 4 PLLCFGR, 8 CFGR, 30 AHB1ENR, 40 APB1ENR, 74 CSR */
#define FLASH(offset) CPU_REG(0x40023C00u + (offset))  /* 0 ACR, 4 KEYR, C SR, 10 CR */
#define GPIOA(offset) CPU_REG(0x40020000u + (offset))  /* 0 MODER, C PUPDR, 18 BSRR, 20 AFRL */
#define USART2(offset) CPU_REG(0x40004400u + (offset)) /* 0 SR (3 overrun, 5 received, 7 empty), 4 DR, 8 BRR, C CR1 */
#define TIM2(offset) CPU_REG(0x40000000u + (offset))   /* 0 CR1, 14 EGR, 18 CCMR1, 20 CCER, 28 PSC, 2C ARR, 34 CCR1 */
#define TIM5(offset) CPU_REG(0x40000C00u + (offset))   /* 24 CNT, 32 bits wide */
#define DAC(offset) CPU_REG(0x40007400u + (offset))    /* 0 CR, 8 DHR12R1 */
#define IWDG(offset) CPU_REG(0x40003000u + (offset))   /* 0 KR, 4 PR, 8 RLR */
#define WAIT_FOR(condition) while (!(condition)) {}

#define TIMER_PRESCALER 71u      /* timers of APB1 run at 72 MHz: one count a microsecond */
#define DAC_FULL_UA 5000u        /* the current source's output at 3.3 V on its control input */
#define START_LOG 0x08060040u    /* flash sector 7, 128 kB, behind the key section: a byte is zeroed at each start */
#define START_MAX (131072u - 64u) /* then the key is used up */

void hal_start(void)
{
    RCC(0x00) |= 5u << 16; /* 8 MHz from the ST-LINK's MCO (HSE bypass): a crystal, not the 1 % RC oscillator */
    WAIT_FOR(RCC(0x00) & (1u << 17));
    RCC(0x04) = (2u << 28) | (6u << 24) | (1u << 22) | (1u << 16) | (144u << 6) | 4u; /* 8 / 4 * 144 / 4 = 72 MHz */
    RCC(0x00) |= 1u << 24;
    WAIT_FOR(RCC(0x00) & (1u << 25));
    FLASH(0x00) = (7u << 8) | 2u; /* caches, prefetch, two wait states: 60 to 90 MHz at 3.3 V */
    RCC(0x08) = (4u << 10) | 2u;  /* APB1 at 36 MHz, run from the PLL */
    WAIT_FOR((RCC(0x08) & 0xCu) == 0x8u);
    RCC(0x30) |= 1u;                                             /* port A */
    RCC(0x40) |= (1u << 0) | (1u << 3) | (1u << 17) | (1u << 29); /* TIM2, TIM5, USART2, DAC */
    (void)RCC(0x40);
    GPIOA(0x18) = 1u << (8 + 16); /* PA8 low: electrode shorted, before it becomes an output */
    GPIOA(0x20) = (GPIOA(0x20) & ~0xFFFFu) | 0x7711u; /* PA0, PA1: TIM2; PA2, PA3: USART2 */
    GPIOA(0x0C) = (GPIOA(0x0C) & ~(3u << 16 | 0xFu)) | (2u << 16) | 0xAu; /* pulled down: PA8, PA0, PA1 */
    GPIOA(0x00) = (GPIOA(0x00) & ~(3u << 16 | 0x3FFu)) | (1u << 16) | (3u << 8) | 0xAAu; /* PA4 analogue */
    USART2(0x08) = 39u; /* 36 MHz / 921600, +0.16 % */
    USART2(0x0C) = (1u << 13) | (1u << 5) | (1u << 3) | (1u << 2);
    nvic_enable(BOARD_WAKE_IRQ(HAL_LINK));
    TIM5(0x28) = TIMER_PRESCALER, TIM2(0x28) = TIMER_PRESCALER;
    TIM5(0x14) = 1u, TIM2(0x14) = 1u; /* take it */
    TIM5(0x00) = 1u;
    TIM2(0x18) = (7u << 12) | (7u << 4); /* both channels PWM 2: inactive below the compare value, so also at rest (0) */
    TIM2(0x34) = 1u;
    TIM2(0x38) = 0xFFFFFFFFu;
    TIM2(0x20) = (1u << 4) | 1u;
    DAC(0x00) = 1u;
}

uint32_t hal_counter_us(void)
{
    return TIM5(0x24);
}

bool hal_uart_get(unsigned uart, uint8_t *byte)
{
    (void)uart;
    if ((USART2(0x00) & ((1u << 5) | (1u << 3))) == 0) {
        return false;
    }
    *byte = (uint8_t)USART2(0x04); /* clears an overrun too: the frame's CRC tells */
    return true;
}

bool hal_uart_put(unsigned uart, uint8_t byte)
{
    (void)uart;
    if ((USART2(0x00) & (1u << 7)) == 0) {
        USART2(0x0C) |= 1u << 7;
        return false;
    }
    USART2(0x04) = byte;
    return true;
}

void hal_interrupt(unsigned irq)
{
    (void)irq;                 /* no other is enabled */
    USART2(0x0C) &= ~(1u << 7); /* no more transmit interrupts, unless hal_uart_put asks for one */
    uart_service(HAL_LINK);
}

/* The timer runs once from 0 to 2 * width and stops: ENABLE (PA0) is high from 1 on, REVERSE (PA1) from width + 1 on. */
bool hal_stimulate(const sea_pulse_t *pulse, sea_given_t *given)
{
    const uint32_t width = pulse->width_us[0];
    const uint32_t amplitude = (uint32_t)pulse->amplitude_uA[1];
    if ((TIM2(0x00) & 1u) != 0 || pulse->width_us[1] != width || amplitude > DAC_FULL_UA) {
        return false;
    }
    DAC(0x08) = amplitude * 4095u / DAC_FULL_UA;
    TIM2(0x2C) = 2u * width;
    TIM2(0x38) = width + 1u;
    TIM2(0x00) = (1u << 3) | 1u; /* one pulse */
    *given = (sea_given_t){0};   /* balanced by construction; this board measures neither charge nor voltage */
    return true;
}

void hal_ground(bool grounded)
{
    GPIOA(0x18) = grounded ? 1u << (8 + 16) : 1u << 8;
}

void hal_watchdog_start(void)
{
    IWDG(0x0) = 0x5555u;
    IWDG(0x4) = 3u;   /* 32 kHz / 32 */
    IWDG(0x8) = 250u; /* ms; 170 to 470 over the oscillator's 47 to 17 kHz */
    IWDG(0x0) = 0xCCCCu;
}

void hal_watchdog_kick(void)
{
    IWDG(0x0) = 0xAAAAu;
}

bool hal_reset_by_watchdog(void)
{
    const bool bitten = (RCC(0x74) & (1u << 29)) != 0;
    RCC(0x74) |= 1u << 24; /* forget it */
    return bitten;
}

uint32_t hal_start_count(uint32_t resets)
{
    (void)resets; /* each start is counted */
    volatile uint8_t *const log = (volatile uint8_t *)START_LOG;
    uint32_t count = 0;
    while (count < START_MAX && log[count] == 0) {
        count++;
    }
    if (count == START_MAX) {
        return count;
    }
    FLASH(0x04) = 0x45670123u;
    FLASH(0x04) = 0xCDEF89ABu;
    FLASH(0x10) = 1u; /* program bytes */
    log[count] = 0;
    WAIT_FOR((FLASH(0x0C) & (1u << 16)) == 0);
    FLASH(0x10) = 1u << 31; /* lock */
    return log[count] == 0 ? count : START_MAX; /* what could not be written would be counted twice */
}
