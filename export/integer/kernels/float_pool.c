
/* Means over `window` neighbouring positions. */
static void pool(const number_t *x, uint32_t channels, uint32_t positions, uint32_t window, number_t *out)
{
    for (uint32_t place = 0; place < positions; place++) {
        for (uint32_t channel = 0; channel < channels; channel++) {
            float sum = 0.0f;
            for (uint32_t i = 0; i < window; i++) {
                sum += (float)x[i * channels + channel];
            }
            *out++ = (number_t)(sum / (float)window);
        }
        x += window * channels;
    }
}
