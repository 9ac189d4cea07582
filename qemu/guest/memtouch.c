// link: -lm
/*
 * memtouch SIZE_KIB: writes a pattern to that much memory and reads it back. Prints "ok BYTES"; ends with 1 on a
 * difference. Shows that guest programs are compiled, linked with the guest's libraries and run.
 */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	size_t words = (argc > 1 ? strtoull(argv[1], NULL, 0) : 1024) * 1024 / sizeof(uint32_t);
	uint32_t *memory = malloc(words * sizeof(*memory));

	if (!memory) {
		perror("memtouch");
		return 1;
	}
	for (size_t i = 0; i < words; i++)
		memory[i] = (uint32_t)i * 2654435761u;
	for (size_t i = 0; i < words; i++) {
		if (memory[i] != (uint32_t)i * 2654435761u) {
			fprintf(stderr, "memtouch: word %zu is wrong\n", i);
			return 1;
		}
	}
	printf("ok %zu, %.0f KiB\n", words * sizeof(*memory), ceil(words * sizeof(*memory) / 1024.0));
	free(memory);
	return 0;
}
