/* SPDX-License-Identifier: MIT */
/* <linux/kfd_ioctl.h> looks for this here; Debian's libdrm-dev has it in /usr/include/libdrm. */
#include <drm.h>
