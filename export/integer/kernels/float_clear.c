
/* The zeros around a convolution's input. */
static void clear(number_t *to, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        to[i] = 0;
    }
}
