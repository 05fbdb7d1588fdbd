
/* Sums over neighbouring positions: their scale is finer by the window. */
static void pool_sum_values(const pool_t *layer, const int16_t *x, int16_t *out)
{
    for (uint32_t place = 0; place < layer->outputs; place++) {
        for (uint32_t channel = 0; channel < layer->channels; channel++) {
            int32_t sum = 0;
            for (uint32_t i = 0; i < layer->window; i++) {
                sum += x[i * layer->channels + channel];
            }
            *out++ = (int16_t)sum;
        }
        x += layer->window * layer->channels;
    }
}
