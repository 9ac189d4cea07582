// SPDX-License-Identifier: MIT
// headers: ../driver
/* usage: shelf-label DEVICE: prints the label that a shelf carries, for example of /dev/shelf-0000:01:00.0. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "fail.h"
#include "shelf.h"

int main(int argc, char **argv)
{
	__u32 label;
	int device;

	if (argc != 2)
		fail("usage: shelf-label DEVICE");
	device = open(argv[1], O_RDWR);
	if (device < 0 || ioctl(device, SHELF_IOC_LABEL, &label))
		fail("cannot read the label of %s: %s", argv[1], strerror(errno));
	printf("%u\n", label);
	return 0;
}
