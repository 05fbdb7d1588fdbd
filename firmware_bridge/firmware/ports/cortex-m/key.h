/* The device key of a Cortex-M board: 48 bytes that are no part of the image, at BOARD_KEY of its link.ld. Whoever sets the
 * board up writes them (firmware_bridge/security/provision.py); nothing here ever does. */
#ifndef KEY_H
#define KEY_H

#include "sea_core.h"

#define KEY_MAGIC 0x4B414553u /* "SEAK" */

typedef struct {
    uint32_t magic;
    uint32_t first_boot; /* starts of this board are counted from here: no other section with this key has these numbers */
    uint32_t boots;      /* so many of them; then the section is used up */
    uint8_t key[SEA_KEY_SIZE];
    uint32_t crc; /* CRC-32 of all before: a section that was written by half is no key */
} key_section_t;

_Static_assert(sizeof(key_section_t) == 48u, "firmware_bridge/security/provision.py writes 48 bytes");

typedef enum {
    KEY_NONE,   /* erased (all ones or all zeros): bench mode */
    KEY_HELD,
    KEY_DAMAGED /* neither, or used up: such a board is never armed */
} key_state_t;

extern const key_section_t key_section; /* link.ld */

/* What a section holds for a board that has started `starts` times since it was written, this start left out. */
key_state_t key_state(const key_section_t *section, uint32_t starts);

/* Takes key and number of this start into the core's configuration. `starts` numbers them where there is no key, too. */
void key_config(const key_section_t *section, uint32_t starts, sea_config_t *config);

#endif
