/* Looks up a name: `ares NAME 4|6|0`. Prints an address per line, or the error's name. */
#include <ares.h>
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/select.h>
#include <sys/socket.h>

static const char *name_of(int status) {
    switch (status) {
    case ARES_ECONNREFUSED: return "ARES_ECONNREFUSED";
    case ARES_ENODATA: return "ARES_ENODATA";
    case ARES_ESERVFAIL: return "ARES_ESERVFAIL";
    case ARES_ENOTFOUND: return "ARES_ENOTFOUND";
    case ARES_EREFUSED: return "ARES_EREFUSED";
    case ARES_EBADRESP: return "ARES_EBADRESP";
    case ARES_ETIMEOUT: return "ARES_ETIMEOUT";
    default: return ares_strerror(status);
    }
}

static void told(void *arg, int status, int timeouts, struct ares_addrinfo *all) {
    struct ares_addrinfo_node *one;
    char text[INET6_ADDRSTRLEN];

    (void)arg;
    (void)timeouts;
    if (status != ARES_SUCCESS) {
        puts(name_of(status));
        return;
    }
    for (one = all->nodes; one; one = one->ai_next) {
        const void *at = one->ai_family == AF_INET
            ? (const void *)&((struct sockaddr_in *)one->ai_addr)->sin_addr
            : (const void *)&((struct sockaddr_in6 *)one->ai_addr)->sin6_addr;
        puts(inet_ntop(one->ai_family, at, text, sizeof text));
    }
    ares_freeaddrinfo(all);
}

int main(int argc, char **argv) {
    struct ares_addrinfo_hints hints;
    ares_channel channel;

    if (argc != 3) return 2;
    if (ares_library_init(ARES_LIB_INIT_ALL) || ares_init(&channel)) return 1;
    memset(&hints, 0, sizeof hints);
    hints.ai_family = *argv[2] == '4' ? AF_INET : *argv[2] == '6' ? AF_INET6 : AF_UNSPEC;
    hints.ai_socktype = SOCK_STREAM;
    ares_getaddrinfo(channel, argv[1], 0, &hints, told, 0);
    for (;;) {
        fd_set in, out;
        struct timeval wait, *until;
        int count;

        FD_ZERO(&in);
        FD_ZERO(&out);
        count = ares_fds(channel, &in, &out);
        if (!count) break;
        until = ares_timeout(channel, 0, &wait);
        select(count, &in, &out, 0, until);
        ares_process(channel, &in, &out);
    }
    ares_destroy(channel);
    ares_library_cleanup();
    return 0;
}
