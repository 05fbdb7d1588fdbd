/* The host board's device key and its count of power-ons: two files that the user alone can read. */
#ifndef KEY_H
#define KEY_H

#include "sea_core.h"

/* Reads a key file ("sea-dbs-key-1 HEX", mode 0600, the user's own, no link), and counts a power-on in PATH.boots: one more
 * than ever before, and never below the time in seconds, should that file be lost. False: standard error says why, without
 * a word of the key. */
bool key_read(const char *path, uint8_t key[SEA_KEY_SIZE], uint32_t *boots);

#endif
