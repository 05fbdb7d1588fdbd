
/* The observation without its zero point. */
static void take(const int8_t *observation, uint32_t count, int32_t zero, int16_t *out)
{
    for (uint32_t i = 0; i < count; i++) {
        out[i] = (int16_t)(observation[i] - zero);
    }
}
