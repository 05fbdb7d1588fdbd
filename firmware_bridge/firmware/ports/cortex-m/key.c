#include "key.h"

#include "sea_frame.h"

static bool is_filled(const uint8_t *bytes, size_t size, uint8_t with)
{
    size_t i = 0;
    while (i < size && bytes[i] == with) {
        i++;
    }
    return i == size;
}

key_state_t key_state(const key_section_t *section, uint32_t starts)
{
    const uint8_t *bytes = (const uint8_t *)section;
    if (is_filled(bytes, sizeof *section, 0xffu) || is_filled(bytes, sizeof *section, 0)) {
        return KEY_NONE;
    }
    if (section->magic != KEY_MAGIC || section->crc != sea_crc32(0, bytes, offsetof(key_section_t, crc)) ||
        starts >= section->boots || section->first_boot > UINT32_MAX - section->boots) {
        return KEY_DAMAGED;
    }
    return KEY_HELD;
}

void key_config(const key_section_t *section, uint32_t starts, sea_config_t *config)
{
    config->boot_count = starts;
    switch (key_state(section, starts)) {
    case KEY_NONE:
        break;
    case KEY_HELD:
        config->boot_count = section->first_boot + starts;
        config->device_key = section->key;
        break;
    case KEY_DAMAGED:
    default:
        config->simulated_output = false; /* no key, and no bench mode either: ARM is refused (KEY) */
        break;
    }
}
