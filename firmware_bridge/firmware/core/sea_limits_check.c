#include "sea_limits_check.h"

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Largest integer whose square is not above the value. */
static uint32_t square_root(uint64_t value)
{
    uint64_t root = 0;
    for (uint64_t bit = UINT64_C(1) << 31; bit != 0; bit >>= 1) {
        const uint64_t tried = root | bit;
        if (tried * tried <= value) {
            root = tried;
        }
    }
    return (uint32_t)root;
}

sea_effective_t sea_tighten(const sea_effective_t *wanted)
{
    const sea_effective_t effective = {
        .amplitude_uA = least(wanted->amplitude_uA, SEA_AMPLITUDE_MAX_UA),
        .electrode_area = least(wanted->electrode_area, SEA_ELECTRODE_AREA),
        .v_max_mV = least(wanted->v_max_mV, SEA_V_MAX_MV),
        .dose_uW = least(wanted->dose_uW, SEA_DOSE_MAX_UW),
        .toggles = least(wanted->toggles, SEA_TOGGLES_MAX),
    };
    return effective;
}

static bool outside(sea_verdict_t *verdict, uint8_t code, uint32_t value, uint32_t low, uint32_t high)
{
    if (value >= low && value <= high) {
        return false;
    }
    verdict->code = code;
    verdict->value = value;
    verdict->low = low;
    verdict->high = high;
    return true;
}

static void lower(sea_verdict_t *verdict, uint16_t reason, uint32_t ceiling)
{
    if (verdict->amplitude_uA > ceiling) {
        verdict->amplitude_uA = ceiling;
        verdict->clamp = (uint16_t)(verdict->clamp | reason);
    }
}

static void lower_all(sea_verdict_t *verdict, uint32_t width, sea_effective_t effective)
{
    /* uC/cm^2 x 10^-6 cm^2 = pC, uA x us = pC; Shannon: Q^2 <= k' x A */
    const uint32_t density = SEA_CHARGE_DENSITY_MAX * effective.electrode_area;
    const uint32_t shannon = square_root((uint64_t)SEA_SHANNON_Q2_PER_AREA * effective.electrode_area);
    lower(verdict, SEA_CLAMP_RUN_TIME_AMPLITUDE, effective.amplitude_uA);
    lower(verdict, SEA_CLAMP_CHARGE_DENSITY, density / width);
    lower(verdict, SEA_CLAMP_SHANNON, shannon / width);
}

uint32_t sea_ceiling(uint32_t width_us, sea_effective_t effective)
{
    sea_verdict_t verdict = {.amplitude_uA = SEA_AMPLITUDE_MAX_UA};
    lower_all(&verdict, width_us, effective);
    return verdict.amplitude_uA;
}

sea_verdict_t sea_judge(const sea_msg_set_stim_t *order, sea_effective_t effective)
{
    sea_verdict_t v = {0};
    const uint32_t width = order->width_us;
    if (outside(&v, SEA_NACK_CODE_AMPLITUDE, order->amplitude_uA, 0, SEA_AMPLITUDE_MAX_UA) ||
        outside(&v, SEA_NACK_CODE_WIDTH, width, SEA_WIDTH_MIN_US, SEA_WIDTH_MAX_US) ||
        outside(&v, SEA_NACK_CODE_SLOT_PERIOD, order->slot_period_us, SEA_SLOT_PERIOD_MIN_US, SEA_SLOT_PERIOD_MAX_US) ||
        outside(&v, SEA_NACK_CODE_SLOTS, order->slots, 1, SEA_SLOTS_MAX) ||
        outside(&v, SEA_NACK_CODE_LEASE, order->lease_ms, SEA_LEASE_MIN_MS, SEA_LEASE_MAX_MS)) {
        return v;
    }
    v.amplitude_uA = order->amplitude_uA;
    lower_all(&v, width, effective);
    return v;
}
