/* mps2-an500: Cortex-M7 (application note AN500). */
#ifndef BOARD_H
#define BOARD_H

#include "mps2.h"

#endif
