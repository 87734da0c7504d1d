/* A program of the host: it must never run in a container, nor be changed by one. */
#include <stdio.h>

int main(void)
{
	puts("HOST PROGRAM RAN");
	return 0;
}
