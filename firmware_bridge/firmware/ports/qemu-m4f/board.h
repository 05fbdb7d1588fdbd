/* mps2-an386: Cortex-M4F (application note AN386). */
#ifndef BOARD_H
#define BOARD_H

#include "mps2.h"

#endif
