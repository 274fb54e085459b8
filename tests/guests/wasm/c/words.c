/* Counts the words of each file that is named, and of standard input if none is. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static long words(FILE *file) {
    long count = 0;
    int inside = 0, byte;
    while ((byte = getc(file)) != EOF) {
        int is_space = isspace(byte);
        count += !is_space && !inside;
        inside = !is_space;
    }
    return count;
}

int main(int argc, char **argv) {
    if (argc == 1)
        printf("%ld\n", words(stdin));
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "r");
        if (!file) {
            perror(argv[i]);
            return EXIT_FAILURE;
        }
        printf("%ld %s\n", words(file), argv[i]);
        fclose(file);
    }
    return EXIT_SUCCESS;
}
