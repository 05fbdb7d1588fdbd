/* Little-endian numbers in byte strings. No libc, no alignment, no aliasing. */
#ifndef SEA_BYTES_H
#define SEA_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline void sea_copy(uint8_t *to, const uint8_t *from, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        to[i] = from[i];
    }
}

static inline bool sea_equal(const uint8_t *a, const uint8_t *b, size_t size)
{
    uint8_t differ = 0;
    for (size_t i = 0; i < size; i++) {
        differ = (uint8_t)(differ | (a[i] ^ b[i]));
    }
    return differ == 0;
}

static inline void sea_put_u8(uint8_t *out, uint8_t value)
{
    out[0] = value;
}

static inline void sea_put_u16(uint8_t *out, uint16_t value)
{
    out[0] = (uint8_t)(value & 0xffu);
    out[1] = (uint8_t)(value >> 8);
}

static inline void sea_put_u32(uint8_t *out, uint32_t value)
{
    for (unsigned i = 0; i < 4; i++) {
        out[i] = (uint8_t)((value >> (8 * i)) & 0xffu);
    }
}

static inline void sea_put_u64(uint8_t *out, uint64_t value)
{
    for (unsigned i = 0; i < 8; i++) {
        out[i] = (uint8_t)((value >> (8 * i)) & 0xffu);
    }
}

static inline uint8_t sea_get_u8(const uint8_t *in)
{
    return in[0];
}

static inline uint16_t sea_get_u16(const uint8_t *in)
{
    return (uint16_t)(in[0] | ((unsigned)in[1] << 8));
}

static inline uint32_t sea_get_u32(const uint8_t *in)
{
    uint32_t value = 0;
    for (unsigned i = 0; i < 4; i++) {
        value |= (uint32_t)in[i] << (8 * i);
    }
    return value;
}

static inline uint64_t sea_get_u64(const uint8_t *in)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < 8; i++) {
        value |= (uint64_t)in[i] << (8 * i);
    }
    return value;
}

#endif
