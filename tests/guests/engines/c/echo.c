/* Sends a line over a connection, waits a moment, and compares what comes back: a state machine of callbacks. */
#include "wakebox.h"

static const char LINE[] = "from C";

struct echo {
    long stream;
    size_t read;
    char *back;
};

static int equal(const char *a, const char *b, size_t len)
{
    while (len && *a == *b)
        a++, b++, len--;
    return len == 0;
}

static void fail(const char *what)
{
    wakebox_print(what);
    wakebox_exit(1);
}

static void on_read(void *self, long result)
{
    struct echo *echo = self;
    if (result <= 0) {
        fail("the connection has ended");
        return;
    }
    echo->read += (size_t)result;
    if (echo->read < sizeof LINE - 1) {
        wakebox_read(echo->stream, echo->back + echo->read, sizeof LINE - 1 - echo->read, on_read, echo);
        return;
    }
    if (!equal(echo->back, LINE, sizeof LINE - 1)) {
        fail("something else came back");
        return;
    }
    echo->back = realloc(echo->back, sizeof LINE);
    echo->back[sizeof LINE - 1] = 0;
    wakebox_print(echo->back);
    wakebox_close(echo->stream);
    free(echo->back);
    free(echo);
    wakebox_exit(0);
}

static void on_sleep(void *self, long result)
{
    struct echo *echo = self;
    (void)result;
    wakebox_read(echo->stream, echo->back, sizeof LINE - 1, on_read, echo);
}

static void on_write(void *self, long result)
{
    if (result < 0)
        fail("nothing can be written");
    else
        wakebox_sleep(1, on_sleep, self);
}

static void on_connect(void *self, long result)
{
    struct echo *echo = self;
    echo->stream = result;
    if (result < 0)
        fail("no connection");
    else
        wakebox_write(result, LINE, sizeof LINE - 1, on_write, echo);
}

void begin(const char *address)
{
    struct echo *echo = calloc(1, sizeof *echo);
    echo->back = malloc(sizeof LINE - 1);
    wakebox_connect(address, on_connect, echo);
}

/* Writes beyond its own frame, as far as it is told. */
void smash(size_t len)
{
    char frame[8];
    volatile char *at = frame;
    for (size_t i = 0; i < len; i++)
        at[i] = 0x41;
}
