/* What an image knows about itself. */
#ifndef IMAGE_H
#define IMAGE_H

#include "sea_core.h"

/* Build (hash of this image, patched in after linking), model (-DSEA_MODEL_HASH), policy, compiled limits. */
void image_config(sea_config_t *config);

/* A constant of the image that nothing looks at once it runs. */
const void *image_mark(void);

#endif
