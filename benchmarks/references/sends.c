/*
 * sends: what the kernel alone lets through. Every answer's next frame is one send(2), each
 * connection in its turn, as a server does it whose streams take turns in an event loop; the frame
 * is made anew each time, and nothing else is done.
 *
 *   cc -O2 -Wall -Wextra -o sends sends.c
 *   sends                        says its port, and serves until it is killed
 *
 * POST /api/chat (chunked NDJSON), GET /ws (WebSocket) and POST …/chat/completions (server-sent
 * events, as OpenAI's API has them). The prompt says tokens=N, and maybe burst=N: so many frames
 * are joined into one send; or rate=N: so many a second, each with the time at which it was due; or
 * at=N, the time (CLOCK_MONOTONIC, nanoseconds) before which there is nothing. It understands loadgen
 * and aiohttp's client, and no others.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MOST 16384

/* The answer to the one WebSocket key that loadgen has (RFC 6455, 1.3). */
#define WS_ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

enum kind { NDJSON, WEBSOCKET, EVENTS };

struct client {
    int fd, place;        /* where it stands among the busy */
    enum kind kind;
    long seq, tokens, burst;
    long apart, due;      /* nanoseconds, of a paced answer */
    bool is_full;
    char *out;            /* what a full socket did not take */
    size_t out_size, in_size;
    char in[8192];
};

static struct client *busy[MOST];
static int busy_count, poller;

static long now;

static long clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000l + t.tv_nsec;
}

static void leave(struct client *client)
{
    if (client->place < 0)
        return;
    busy[client->place] = busy[--busy_count];
    busy[client->place]->place = client->place;
    client->place = -1;
}

static void hang_up(struct client *client)
{
    leave(client);
    close(client->fd);
    free(client->out);
    free(client);
}

static void await(struct client *client, bool is_full)
{
    struct epoll_event event = {.data.ptr = client, .events = EPOLLIN};
    if (is_full)
        event.events |= EPOLLOUT;
    client->is_full = is_full;
    epoll_ctl(poller, EPOLL_CTL_MOD, client->fd, &event);
}

static void transmit(struct client *client, const char *data, size_t size)
{
    ssize_t sent = send(client->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0)
        sent = 0; /* full, or gone, which the next read tells */
    if ((size_t)sent < size) {
        client->out = realloc(client->out, client->out_size + size - (size_t)sent);
        memcpy(client->out + client->out_size, data + sent, size - (size_t)sent);
        client->out_size += size - (size_t)sent;
        await(client, true);
    }
}

static size_t chunk(char *at, const char *data, size_t size)
{
    int head = sprintf(at, "%zx\r\n", size);
    memcpy(at + head, data, size);
    memcpy(at + head + size, "\r\n", 2);
    return (size_t)head + size + 2;
}

static size_t message(char *at, const char *data, size_t size)
{
    size_t head = 2;
    at[0] = (char)0x81;
    if (size < 126) {
        at[1] = (char)size;
    } else {
        at[1] = 126;
        at[2] = (char)(size >> 8);
        at[3] = (char)size;
        head = 4;
    }
    memcpy(at + head, data, size);
    return head + size;
}

static size_t frame(struct client *client, char *at, const char *type, const char *rest)
{
    if (client->kind == EVENTS)
        return (size_t)sprintf(at,
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,"
            "\"model\":\"fake\",\"choices\":[{\"index\":0,\"delta\":{%s},\"finish_reason\":%s}]}\n\n",
            rest, *type == 'd' ? "\"stop\"" : "null");
    return (size_t)sprintf(at,
        "{\"type\":\"%s\",\"stream_id\":\"01890a5d-ac96-774b-bcce-b302099a8057\","
        "\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"epoch\":1700000000000,"
        "\"seq\":%ld,%s}\n", type, ++client->seq, rest);
}

/* The next send of an answer: its first frame, tokens, or its end. */
static void go_on(struct client *client)
{
    static char frames[65536], wrapped[65536 + 64];
    size_t size = 0;
    bool is_last = false;
    if (client->kind != EVENTS && client->seq == 0) {
        size = frame(client, frames, "status", "\"status\":\"thinking\"");
        client->due = now + client->apart;
    } else if (client->apart && client->tokens > 0) {
        char text[64];
        client->tokens--;
        snprintf(text, sizeof text, client->kind == EVENTS ? "\"content\":\"token \""
                                                           : "\"text\":\"t%ld\"", client->due);
        size = frame(client, frames, "token", text);
        client->due += client->apart;
    } else if (client->tokens > 0) {
        long burst = client->burst < client->tokens ? client->burst : client->tokens;
        client->tokens -= burst;
        for (; burst > 0; burst--)
            size += frame(client, frames + size, "token",
                          client->kind == EVENTS ? "\"content\":\"token \"" : "\"text\":\"token \"");
    } else {
        is_last = true;
        size = frame(client, frames, "done",
                     client->kind == EVENTS ? "" : "\"finish_reason\":\"stop\"");
        if (client->kind == EVENTS)
            size += (size_t)sprintf(frames + size, "data: [DONE]\n\n");
    }
    size = (client->kind == WEBSOCKET ? message : chunk)(wrapped, frames, size);
    if (is_last && client->kind != WEBSOCKET) {
        memcpy(wrapped + size, "0\r\n\r\n", 5);
        size += 5;
    }
    if (is_last)
        leave(client);
    transmit(client, wrapped, size);
}

static long word(const char *prompt, const char *name, long otherwise)
{
    const char *at = strstr(prompt, name);
    return at ? atol(at + strlen(name)) : otherwise;
}

static void begin(struct client *client, const char *prompt)
{
    client->seq = 0;
    client->tokens = word(prompt, "tokens=", 1);
    client->burst = word(prompt, "burst=", 1);
    long rate = word(prompt, "rate=", 0);
    client->apart = rate ? 1000000000l / rate : 0;
    client->due = rate ? clock_now() : word(prompt, "at=", 0);
    if (busy_count == MOST)
        exit(1);
    client->place = busy_count;
    busy[busy_count++] = client;
}

/* The first whole request in what has been read: its size, 0 for none yet. */
static size_t take_http(struct client *client)
{
    char *end = strstr(client->in, "\r\n\r\n");
    if (!end)
        return 0;
    char *length = strcasestr(client->in, "\r\ncontent-length:");
    size_t head = (size_t)(end + 4 - client->in);
    size_t size = head + (length && length < end ? strtoul(length + 17, NULL, 10) : 0);
    if (client->in_size < size)
        return 0;
    if (strncmp(client->in, "GET /ws", 7) == 0) {
        static const char accepted[] =
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Accept: " WS_ACCEPT "\r\n\r\n";
        client->kind = WEBSOCKET;
        transmit(client, accepted, sizeof accepted - 1);
    } else if (strncmp(client->in, "GET", 3) == 0) {
        static const char ready[] = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        transmit(client, ready, sizeof ready - 1);
    } else {
        char answer[256];
        client->kind = strncmp(client->in, "POST /api/", 10) == 0 ? NDJSON : EVENTS;
        int answer_size = snprintf(answer, sizeof answer,
            "HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n",
            client->kind == NDJSON ? "application/x-ndjson" : "text/event-stream");
        transmit(client, answer, (size_t)answer_size);
        begin(client, end + 4);
    }
    return size;
}

static size_t take_ws(struct client *client)
{
    unsigned char *in = (unsigned char *)client->in;
    if (client->in_size < 8)
        return 0;
    size_t size = in[1] & 0x7f, head = 2;
    if (size == 126) {
        size = (size_t)in[2] << 8 | in[3];
        head = 4;
    }
    if (client->in_size < head + 4 + size)
        return 0;
    char prompt[4096];
    for (size_t i = 0; i < size && i < sizeof prompt - 1; i++)
        prompt[i] = (char)(in[head + 4 + i] ^ in[head + i % 4]);
    prompt[size < sizeof prompt ? size : sizeof prompt - 1] = 0;
    if ((in[0] & 0x0f) == 1)
        begin(client, prompt);
    return head + 4 + size;
}

static void hear(struct client *client)
{
    size_t room = sizeof client->in - 1 - client->in_size, size;
    ssize_t got = recv(client->fd, client->in + client->in_size, room, 0);
    if (got <= 0) {
        hang_up(client);
        return;
    }
    client->in_size += (size_t)got;
    client->in[client->in_size] = 0;
    while ((size = (client->kind == WEBSOCKET ? take_ws : take_http)(client))) {
        client->in_size -= size;
        memmove(client->in, client->in + size, client->in_size + 1);
    }
}

static void take_rest(struct client *client)
{
    ssize_t sent = send(client->fd, client->out, client->out_size, MSG_NOSIGNAL);
    if (sent > 0) {
        client->out_size -= (size_t)sent;
        memmove(client->out, client->out + sent, client->out_size);
    }
    if (!client->out_size)
        await(client, false);
}

int main(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    struct epoll_event events[256], event = {.events = EPOLLIN};
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    bool is_paced = false; /* nobody is in a hurry */
    int listener = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    poller = epoll_create1(0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0 ||
        listen(listener, 1024) < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) < 0) {
        perror("sends");
        return 1;
    }
    getsockname(listener, (struct sockaddr *)&address, &size);
    printf("http://127.0.0.1:%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int count = epoll_wait(poller, events, 256, !busy_count ? -1 : is_paced ? 1 : 0);
        is_paced = true; /* nobody has anything to send yet */
        for (int i = 0; i < count; i++) {
            struct client *client = events[i].data.ptr;
            if (!client) {
                client = calloc(1, sizeof *client);
                client->place = -1;
                client->fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
                setsockopt(client->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                struct epoll_event new = {.events = EPOLLIN, .data.ptr = client};
                epoll_ctl(poller, EPOLL_CTL_ADD, client->fd, &new);
                continue;
            }
            if (events[i].events & EPOLLOUT)
                take_rest(client);
            if (events[i].events & ~(unsigned)EPOLLOUT)
                hear(client);
        }
        now = clock_now();
        for (int i = busy_count - 1; i >= 0; i--) {
            is_paced &= busy[i]->apart > 0 || busy[i]->due > now;
            if (!busy[i]->is_full && busy[i]->due <= now)
                go_on(busy[i]);
        }
    }
}
