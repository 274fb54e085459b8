/* Asynchronous input and output for C in a Wakebox guest. Nothing here waits: each call returns at once, and the
 * function that it was given is called from the guest's executor when it is done. One function runs at a time.
 *
 * A result is how many bytes there were, or -1 for any error. A buffer belongs to the call until it is done. */
#ifndef WAKEBOX_H
#define WAKEBOX_H

#include <stddef.h>

typedef void wakebox_done(void *self, long result);

/* Connects to "ADDRESS:PORT"; the result is a stream, from 0 on. */
void wakebox_connect(const char *address, wakebox_done *done, void *self);
/* Reads at most `len` bytes; 0 is the end of the stream. */
void wakebox_read(long stream, void *into, size_t len, wakebox_done *done, void *self);
/* Writes all `len` bytes. */
void wakebox_write(long stream, const void *from, size_t len, wakebox_done *done, void *self);
/* Closes a stream on which nothing is under way. */
void wakebox_close(long stream);
/* Is done after so many milliseconds; the result is 0. */
void wakebox_sleep(unsigned long millis, wakebox_done *done, void *self);
/* Prints a line. */
void wakebox_print(const char *line);
/* Ends the guest. */
void wakebox_exit(int code);

/* The guest's heap. */
void *malloc(size_t len);
void *calloc(size_t count, size_t len);
void *realloc(void *block, size_t len);
void free(void *block);

#endif
