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

void image_config(sea_config_t *config)
{
    *config = (sea_config_t){.boot_count = 1,
                             .amplitude_limit_uA = SEA_AMPLITUDE_MAX_UA,
                             .electrode_area = SEA_ELECTRODE_AREA};
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
