/* Looks up a name: `getaddrinfo NAME 4|6|0`. Prints an address per line, or the error's name. */
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static const char *name_of(int error) {
    switch (error) {
    case EAI_AGAIN: return "EAI_AGAIN";
    case EAI_FAIL: return "EAI_FAIL";
    case EAI_NONAME: return "EAI_NONAME";
    case EAI_SYSTEM: return "EAI_SYSTEM";
    default: return gai_strerror(error);
    }
}

int main(int argc, char **argv) {
    struct addrinfo hints, *all = 0, *one;
    char text[INET6_ADDRSTRLEN];
    int error;

    if (argc != 3) return 2;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = *argv[2] == '4' ? AF_INET : *argv[2] == '6' ? AF_INET6 : AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    error = getaddrinfo(argv[1], 0, &hints, &all);
    if (error) {
        puts(name_of(error));
        return 0;
    }
    for (one = all; one; one = one->ai_next) {
        const void *at = one->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        puts(inet_ntop(one->ai_family, at, text, sizeof text));
    }
    return 0;
}
