/* The core's own registers (ARMv7-M, ARMv8-M architecture reference manuals): the same on each Cortex-M. */
#ifndef CPU_H
#define CPU_H

#include <stdint.h>

#define CPU_REG(address) (*(volatile uint32_t *)(uintptr_t)(address))

#define SYST_CSR CPU_REG(0xE000E010u)
#define SYST_RVR CPU_REG(0xE000E014u)
#define SYST_CVR CPU_REG(0xE000E018u)
#define NVIC_ISER(n) CPU_REG(0xE000E100u + 4u * (n))
#define NVIC_ISPR(n) CPU_REG(0xE000E200u + 4u * (n))
#define NVIC_IPR(irq) (*(volatile uint8_t *)(uintptr_t)(0xE000E400u + (irq)))
#define SCB_VTOR CPU_REG(0xE000ED08u)
#define SCB_AIRCR CPU_REG(0xE000ED0Cu)
#define SCB_SHPR3_SYSTICK (*(volatile uint8_t *)(uintptr_t)0xE000ED23u)
#define SCB_CPACR CPU_REG(0xE000ED88u)

/* Lower is more urgent. Only the top bits exist: 0x20 steps suit every part. */
#define PRIORITY_UART 0x40u
#define PRIORITY_TICK 0x80u

static inline void nvic_enable(unsigned irq)
{
    NVIC_IPR(irq) = PRIORITY_UART;
    NVIC_ISER(irq / 32u) = 1u << (irq % 32u);
}

static inline void nvic_pend(unsigned irq)
{
    NVIC_ISPR(irq / 32u) = 1u << (irq % 32u);
}

/* All interrupts off but NMI; gives what was. */
static inline uint32_t irq_off(void)
{
    uint32_t before;
    __asm volatile("mrs %0, primask\n\tcpsid i" : "=r"(before)::"memory");
    return before;
}

static inline void irq_restore(uint32_t before)
{
    __asm volatile("msr primask, %0" ::"r"(before) : "memory");
}

/* The tick off, UARTs on: while the main loop works on the core. */
static inline void tick_off(void)
{
    __asm volatile("msr basepri, %0\n\tdsb\n\tisb" ::"r"(PRIORITY_TICK) : "memory");
}

static inline void tick_on(void)
{
    __asm volatile("msr basepri, %0" ::"r"(0u) : "memory");
}

#endif
