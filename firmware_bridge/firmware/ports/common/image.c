#include "image.h"

/* The 32 bytes after the mark are zero when the image is hashed, and hold the hash afterwards (firmware_bridge/build.py). */
#define MARK_SIZE 16u
static const volatile uint8_t field[MARK_SIZE + 32u] = "sea-dbs.build->";

#ifdef SEA_MODEL_HASH
static uint8_t nibble(char digit)
{
    return (uint8_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}
#endif

/* A fixed setting for FALLBACK, approved before the image is built; without one FALLBACK ramps to 0. */
#ifndef SEA_FALLBACK_UA
#define SEA_FALLBACK_UA 0
#define SEA_FALLBACK_WIDTH_US 0
#define SEA_FALLBACK_PERIOD_US 0
#endif

const void *image_mark(void)
{
    static const char mark[] = "sea-dbs constant";
    return mark;
}

void image_config(sea_config_t *config)
{
    *config = (sea_config_t){.boot_count = 1,
                             .limits = {.amplitude_uA = SEA_AMPLITUDE_MAX_UA,
                                        .electrode_area = SEA_ELECTRODE_AREA,
                                        .v_max_mV = SEA_V_MAX_MV,
                                        .dose_uW = SEA_DOSE_MAX_UW,
                                        .toggles = SEA_TOGGLES_MAX},
                             .fallback = {.amplitude_uA = SEA_FALLBACK_UA,
                                          .width_us = SEA_FALLBACK_WIDTH_US,
                                          .period_us = SEA_FALLBACK_PERIOD_US}};
#ifdef SEA_VIRTUAL
    config->simulated_output = true;
#endif
    for (size_t i = 0; i < sizeof config->firmware_build; i++) {
        config->firmware_build[i] = field[MARK_SIZE + i]; /* volatile: the compiler must not know the zeros */
    }
#ifdef SEA_MODEL_HASH
    static const char model[] = SEA_MODEL_HASH;
    for (size_t i = 0; i < sizeof config->model_hash; i++) {
        config->model_hash[i] = (uint8_t)((nibble(model[2 * i]) << 4) | nibble(model[2 * i + 1]));
    }
#endif
#ifdef SEA_WITH_POLICY
    config->policy = &SEA_POLICY;
#endif
}
