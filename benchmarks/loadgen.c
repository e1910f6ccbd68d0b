/*
 * loadgen: asks a chat server many things at once, and watches how the answers come.
 *
 *   cc -O2 -Wall -Wextra -o loadgen loadgen.c        (Linux; nothing but libc)
 *   loadgen --port 8765 --path /ws --transport ws --connections 50 --chats 10 \
 *           --body '{"type":"start","prompt":"Hello"}'
 *
 * One thread, one epoll. A chat is one question and its answer; a connection has its chats one
 * after the other. Over HTTP the body is POSTed and the response is NDJSON; over WebSocket (ws) it
 * is a text message, masked, and a message holds one or more lines; socketio (Socket.IO 5 on
 * Engine.IO 4, WebSocket only) sends it as the event "chat". A frame is one line of JSON that is
 * not empty, with its "type" and maybe a "seq", which must then grow by one within a chat. The
 * lines of server-sent events, as OpenAI's API has them, are tokens too, and [DONE] is the end.
 *
 * A token whose text is t123456789 was due at that time (CLOCK_MONOTONIC, in nanoseconds): how much
 * later it is read is its delay. Whether the answers keep up with what is due is told over the
 * steady time, when all connections have begun and none has ended.
 *
 * `together` is the time in which every connection had its answer going, and its frames.
 *
 * The result is one JSON object on stdout; times in it are seconds. `busy` is the share of the
 * run that this program worked: near 1 it was this program that could not go any faster. Exit
 * status: 0 all chats complete, 1 not so (see `errors` and `first_error`), 2 wrong usage.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define SECOND 1000000000ull
#define CONNECTING_AT_ONCE 256
#define LONGEST_LINE (64u << 20)

/* RFC 6455, 1.3: its sample key. The servers measured here are not to be checked for their hash. */
#define WS_KEY "dGhlIHNhbXBsZSBub25jZQ=="

enum transport { HTTP, WS, SOCKETIO };
static const char *const TRANSPORTS[] = {"http", "ws", "socketio"};

static struct {
    const char *host, *path, *body, *slow_body;
    enum transport transport;
    int port, connections, chats, slow;
    double stagger, timeout, supersede;
    bool hold, spin;
} options = {
    .host = "127.0.0.1", .path = "/", .body = "{}", .connections = 1, .chats = 1, .timeout = 60,
};

/* ---- Small things ---- */

static uint64_t clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static void die(const char *what)
{
    fprintf(stderr, "loadgen: %s: %s\n", what, strerror(errno));
    exit(2);
}

struct bytes {
    char *at;
    size_t size, room;
};

static void add(struct bytes *bytes, const void *more, size_t size)
{
    if (bytes->size + size > bytes->room) {
        bytes->room = 2 * (bytes->size + size);
        if (!(bytes->at = realloc(bytes->at, bytes->room)))
            die("realloc");
    }
    memcpy(bytes->at + bytes->size, more, size);
    bytes->size += size;
}

/* Durations in nanoseconds, all of them: quantiles are exact. */
struct samples {
    uint64_t *at;
    size_t count, room;
};

static void sample(struct samples *samples, uint64_t value)
{
    if (samples->count == samples->room) {
        samples->room = samples->room ? 2 * samples->room : 4096;
        if (!(samples->at = realloc(samples->at, samples->room * sizeof *samples->at)))
            die("realloc");
    }
    samples->at[samples->count++] = value;
}

/* ---- What is measured ---- */

static struct {
    uint64_t frames, tokens, bytes, reads, chats, errors, replaced;
    uint64_t first_ask, last_end;
    uint64_t idle; /* spent in polls that brought nothing */
    /* While every connection has its answer going: from the last one's first token on. */
    uint64_t together_from, together_until, frames_before, frames_after;
    struct samples first_frame, first_token, whole, replace;
    struct samples due, delay; /* of the same tokens */
    char first_error[256];
} seen;

/* ---- Connections ---- */

enum stage { CLOSED, CONNECTING, HANDSHAKE, READY, ASKED };
enum part { HEAD, SIZE, EXTENSION, DATA, AFTER_DATA, TRAILER, REST };

struct connection {
    int fd, number, chats_left;
    enum stage stage;
    enum part part;           /* of the HTTP response */
    uint64_t left;            /* bytes of the chunk, of the body or of the WebSocket frame */
    bool closes;              /* the body ends with the connection */
    bool wants_out, is_slow, is_done, has_frame, has_token, is_text, is_final;
    unsigned header_size, line_size;
    unsigned char header[10]; /* of the WebSocket frame */
    unsigned char opcode;
    uint64_t asked_at;
    long seq, seq_at;
    struct bytes line;        /* the frame, or the HTTP head, that is not complete */
    struct bytes control;     /* the payload of a ping or a close */
    struct bytes out;
};

static struct connection *connections;
static int poller;
static uint64_t now; /* when the bytes at hand were read */
static uint64_t supersede_until;
static int connecting, settled, active, open_count;
static bool is_running;
static struct sockaddr_in address;

static void ask(struct connection *c);
static void open_connection(struct connection *c);

static void watch(struct connection *c, int how)
{
    struct epoll_event event = {.data.ptr = c};
    if (!(c->is_slow && c->stage == ASKED))
        event.events |= EPOLLIN;
    if (c->wants_out)
        event.events |= EPOLLOUT;
    if (epoll_ctl(poller, how, c->fd, &event) < 0)
        die("epoll_ctl");
}

static void settle(struct connection *c, enum stage stage)
{
    if (c->stage == CONNECTING)
        connecting--;
    if (c->stage < READY && !is_running)
        settled++;
    c->stage = stage;
}

static void hang_up(struct connection *c)
{
    if (c->stage == CLOSED)
        return;
    settle(c, CLOSED);
    close(c->fd);
    open_count--;
    if (c->chats_left > 0) {
        c->chats_left = 0;
        active--;
    }
}

__attribute__((format(printf, 2, 3)))
static void fail(struct connection *c, const char *format, ...)
{
    if (!seen.errors++) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(seen.first_error, sizeof seen.first_error, format, arguments);
        va_end(arguments);
        for (char *at = seen.first_error; *at; at++)
            if (*at == '"' || *at == '\\' || (unsigned char)*at < ' ')
                *at = '\'';
    }
    hang_up(c);
}

static void flush(struct connection *c)
{
    ssize_t sent = send(c->fd, c->out.at, c->out.size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN && errno != EINTR) {
        fail(c, "send: %s", strerror(errno));
        return;
    }
    if (sent > 0) {
        c->out.size -= (size_t)sent;
        memmove(c->out.at, c->out.at + sent, c->out.size);
    }
    if (c->wants_out != (c->out.size > 0)) {
        c->wants_out = c->out.size > 0;
        watch(c, EPOLL_CTL_MOD);
    }
}

static void transmit(struct connection *c, const void *data, size_t size)
{
    bool was_empty = c->out.size == 0;
    add(&c->out, data, size);
    if (was_empty)
        flush(c);
}

/* RFC 6455, 5.3: what a client sends is masked. Its key need not be a good one here. */
static void transmit_ws(struct connection *c, unsigned opcode, const char *data, size_t size)
{
    static struct bytes message;
    static const unsigned char mask[4] = {0x5a, 0xc3, 0x17, 0x88};
    unsigned char head[10] = {(unsigned char)(0x80 | opcode)};
    size_t head_size = 2;
    if (size < 126) {
        head[1] = (unsigned char)(0x80 | size);
    } else {
        int width = size < 65536 ? 2 : 8;
        head[1] = width == 2 ? 0x80 | 126 : 0x80 | 127;
        for (int i = 0; i < width; i++)
            head[2 + i] = (unsigned char)((uint64_t)size >> 8 * (width - 1 - i));
        head_size += (size_t)width;
    }
    message.size = 0;
    add(&message, head, head_size);
    add(&message, mask, sizeof mask);
    add(&message, data, size);
    for (size_t i = 0; i < size; i++)
        message.at[head_size + 4 + i] ^= (char)mask[i % 4];
    transmit(c, message.at, message.size);
}

static void is_ready(struct connection *c)
{
    settle(c, READY);
    if (is_running && c->chats_left > 0)
        ask(c);
}

static void connected(struct connection *c)
{
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        fail(c, "connect: %s", strerror(error));
        return;
    }
    c->wants_out = false;
    watch(c, EPOLL_CTL_MOD);
    if (options.transport == HTTP) {
        is_ready(c);
        return;
    }
    connecting--;
    c->stage = HANDSHAKE;
    char request[1024];
    int length = snprintf(request, sizeof request,
        "GET %s HTTP/1.1\r\nHost: %s:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " WS_KEY "\r\n\r\n",
        options.path, options.host, options.port);
    transmit(c, request, (size_t)length);
}

static void open_connection(struct connection *c)
{
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        die("socket");
    open_count++;
    connecting++;
    int one = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (c->is_slow) {
        int small = 16 * 1024;
        setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    }
    c->stage = CONNECTING;
    c->part = HEAD;
    c->header_size = 0;
    c->closes = false;
    c->line.size = c->control.size = c->out.size = 0;
    c->wants_out = true;
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0 && errno != EINPROGRESS)
        fail(c, "connect: %s", strerror(errno));
    else
        watch(c, EPOLL_CTL_ADD);
}

/* ---- Chats ---- */

/* The body, with the connection's number in the place of every $N. */
static const char *body_of(struct connection *c, size_t *size)
{
    static struct bytes body;
    body.size = 0;
    const char *from = c->is_slow && options.slow_body ? options.slow_body : options.body, *mark;
    while ((mark = strstr(from, "$N"))) {
        char number[16];
        add(&body, from, (size_t)(mark - from));
        add(&body, number, (size_t)snprintf(number, sizeof number, "%d", c->number));
        from = mark + 2;
    }
    add(&body, from, strlen(from));
    *size = body.size;
    return body.at;
}

static void ask(struct connection *c)
{
    size_t size;
    const char *body = body_of(c, &size);
    c->stage = ASKED;
    c->is_done = c->has_frame = c->has_token = false;
    c->seq = 0;
    c->asked_at = clock_now();
    if (!seen.first_ask)
        seen.first_ask = c->asked_at;
    static struct bytes request;
    request.size = 0;
    if (options.transport == HTTP) {
        char head[1024];
        int length = snprintf(head, sizeof head,
            "POST %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Type: application/json\r\n"
            "Content-Length: %zu\r\n\r\n", options.path, options.host, options.port, size);
        add(&request, head, (size_t)length);
        add(&request, body, size);
        transmit(c, request.at, request.size);
    } else if (options.transport == WS) {
        transmit_ws(c, 1, body, size);
    } else {
        add(&request, "42[\"chat\",", 10);
        add(&request, body, size);
        add(&request, "]", 1);
        transmit_ws(c, 1, request.at, request.size);
    }
    if (c->is_slow && c->stage == ASKED) { /* it reads nothing from now on */
        watch(c, EPOLL_CTL_MOD);
        c->chats_left = 0;
        active--;
    }
}

static void answered(struct connection *c)
{
    now = clock_now();
    if (!seen.chats++) {
        seen.together_until = now;
        seen.frames_after = seen.frames;
    }
    seen.last_end = now;
    sample(&seen.whole, now - c->asked_at);
    c->stage = READY;
    c->part = HEAD;
    c->line.size = 0;
    if (--c->chats_left == 0) {
        active--;
        hang_up(c);
    } else if (c->closes) {
        close(c->fd);
        open_count--;
        open_connection(c);
    } else {
        ask(c);
    }
}

/* Superseding: as soon as the newest stream has spoken, the next one takes its place. */
static void supersede(struct connection *c)
{
    static bool is_due;
    if (c) {
        seen.replaced++;
        seen.last_end = now;
        sample(&seen.replace, now - c->asked_at);
        is_due = true;
    }
    if (!is_due)
        return;
    if (now >= supersede_until) {
        active = 0;
        return;
    }
    if (options.transport != HTTP) {
        is_due = false;
        ask(&connections[0]);
        return;
    }
    for (int i = 0; i < options.connections; i++)
        if (connections[i].stage == READY) {
            is_due = false;
            ask(&connections[i]);
            return;
        }
}

/* ---- Frames ---- */

static bool number_after(const char *at, const char *end, long *number)
{
    while (at < end && *at == ' ')
        at++;
    const char *from = at;
    for (*number = 0; at < end && *at >= '0' && *at <= '9'; at++)
        *number = *number * 10 + (*at - '0');
    return at > from;
}

/* The value of a field begins here; most often where it began in the frame before. */
static const char *find(const char *frame, size_t size, const char *name, size_t length)
{
    const char *at = memmem(frame, size, name, length);
    return at ? at + length : NULL;
}

static void check_seq(struct connection *c, const char *frame, size_t size)
{
    long seq;
    const char *at = frame + c->seq_at;
    if (!c->seq_at || c->seq_at > (long)size || memcmp(at - 6, "\"seq\":", 6) != 0)
        at = find(frame, size, "\"seq\":", 6);
    if (!at || !number_after(at, frame + size, &seq))
        return;
    c->seq_at = at - frame;
    if (c->seq && seq != c->seq + 1 && !options.supersede)
        fail(c, "seq %ld after %ld", seq, c->seq);
    c->seq = seq;
}

static void check_delay(const char *frame, size_t size)
{
    const char *at = find(frame, size, "\"text\":", 7);
    long due;
    if (!at)
        return;
    at += *at == ' ';
    if (at + 2 < frame + size && at[1] == 't' && number_after(at + 2, frame + size, &due)) {
        sample(&seen.due, (uint64_t)due);
        sample(&seen.delay, now > (uint64_t)due ? now - (uint64_t)due : 0);
    }
}

static void take_frame(struct connection *c, const char *frame, size_t size)
{
    if (options.transport == SOCKETIO && (size < 2 || frame[0] != '4' || frame[1] != '2'))
        return;
    if (size == 0 || c->stage == CLOSED)
        return;
    const char *type = find(frame, size, "\"type\":", 7);
    if (!type && size > 6 && memcmp(frame, "data: ", 6) == 0)
        type = frame[6] == '[' ? "\"done\"" : "\"token\""; /* what OpenAI's API sends */
    if (!type) {
        fail(c, "no frame: %.*s", (int)(size < 100 ? size : 100), frame);
        return;
    }
    type += *type == ' ';
    seen.frames++;
    if (!c->has_frame) {
        c->has_frame = true;
        sample(&seen.first_frame, now - c->asked_at);
    }
    check_seq(c, frame, size);
    if (type[1] == 't') {
        seen.tokens++;
        check_delay(frame, size);
        if (options.supersede) {
            supersede(c);
        } else if (!c->has_token) {
            c->has_token = true;
            sample(&seen.first_token, now - c->asked_at);
            if (seen.first_token.count == (size_t)options.connections) {
                seen.together_from = now;
                seen.frames_before = seen.frames;
            }
            if (options.hold)
                settled++;
        }
    } else if (type[1] == 'd') {
        c->is_done = true;
    } else if (type[1] == 'e') {
        fail(c, "an error: %.*s", (int)(size < 200 ? size : 200), frame);
    }
}

static void take_payload(struct connection *c, const char *at, const char *end)
{
    while (at < end && c->stage == ASKED) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const char *until = newline ? newline : end;
        if (c->line.size || !newline)
            add(&c->line, at, (size_t)(until - at));
        if (!newline)
            break;
        if (c->line.size) {
            size_t size = c->line.size;
            c->line.size = 0;
            take_frame(c, c->line.at, size);
        } else {
            take_frame(c, at, (size_t)(until - at));
        }
        at = until + 1;
    }
    if (c->line.size > LONGEST_LINE)
        fail(c, "a line without an end");
}

/* ---- HTTP ---- */

static void body_ended(struct connection *c)
{
    if (!options.supersede && !c->is_done) {
        fail(c, "a response without its terminal frame");
    } else if (options.supersede) {
        c->stage = READY;
        c->part = HEAD;
        supersede(NULL);
    } else {
        answered(c);
    }
}

/* Once the head is complete; returns where the body begins in what was just read. */
static const char *take_head(struct connection *c, const char *at, const char *end)
{
    size_t had = c->line.size;
    add(&c->line, at, (size_t)(end - at));
    add(&c->line, "", 1);
    c->line.size--;
    char *head = c->line.at, *blank = strstr(head, "\r\n\r\n");
    if (!blank)
        return end;
    *blank = 0;
    const char *body = at + ((size_t)(blank - head) + 4 - had);
    c->line.size = 0;
    if (c->stage == HANDSHAKE) {
        if (strncmp(head, "HTTP/1.1 101", 12) != 0)
            fail(c, "no WebSocket: %.60s", head);
        else if (options.transport == WS)
            is_ready(c);
        return body;
    }
    if (strncmp(head, "HTTP/1.1 200", 12) != 0) {
        fail(c, "%.60s", head);
        return end;
    }
    const char *length = strcasestr(head, "\r\ncontent-length:");
    c->closes = strcasestr(head, "\r\nconnection: close") != NULL;
    c->left = 0;
    c->line_size = 0;
    if (strcasestr(head, "\r\ntransfer-encoding: chunked")) {
        c->part = SIZE;
    } else {
        c->part = REST;
        c->closes |= !length;
        c->left = length ? strtoull(length + 17, NULL, 10) : UINT64_MAX;
    }
    return body;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static void take_http(struct connection *c, const char *at, const char *end)
{
    while (at < end && c->stage == ASKED) {
        uint64_t size = (uint64_t)(end - at);
        switch (c->part) {
        case HEAD:
            at = take_head(c, at, end);
            break;
        case SIZE: {
            int digit = hex_digit(*at);
            if (digit >= 0) {
                c->left = c->left * 16 + (unsigned)digit;
                at++;
                break;
            }
            c->part = EXTENSION;
            break;
        }
        case EXTENSION:
            if (*at++ == '\n')
                c->part = c->left ? DATA : TRAILER;
            break;
        case DATA:
        case REST:
            size = size < c->left ? size : c->left;
            c->left -= size;
            take_payload(c, at, at + size);
            at += size;
            if (!c->left && c->part == DATA)
                c->part = AFTER_DATA;
            else if (!c->left && c->stage == ASKED)
                body_ended(c);
            break;
        case AFTER_DATA:
            if (*at++ == '\n')
                c->part = SIZE;
            break;
        case TRAILER:
            if (*at == '\n' && c->line_size <= 1) {
                body_ended(c); /* nothing may follow: there was one request */
                return;
            }
            c->line_size = *at++ == '\n' ? 0 : c->line_size + 1;
            break;
        }
    }
}

/* ---- WebSocket ---- */

static void take_socketio(struct connection *c, const char *message, size_t size)
{
    if (size >= 1 && message[0] == '0')
        transmit_ws(c, 1, "40", 2);
    else if (size >= 2 && message[0] == '4' && message[1] == '0')
        is_ready(c);
    else if (size >= 1 && message[0] == '2')
        transmit_ws(c, 1, "3", 1);
}

static void message_ended(struct connection *c)
{
    if (c->line.size) { /* a message's end ends its last frame too */
        size_t size = c->line.size;
        c->line.size = 0;
        if (options.transport == SOCKETIO && c->line.at[0] != '4')
            take_socketio(c, c->line.at, size);
        else if (options.transport == SOCKETIO && c->stage == HANDSHAKE)
            take_socketio(c, c->line.at, size);
        else if (c->stage == ASKED)
            take_frame(c, c->line.at, size);
    }
    if (c->is_done && c->stage == ASKED && !options.supersede)
        answered(c);
}

static void frame_ended(struct connection *c)
{
    c->header_size = 0;
    if (c->opcode == 9)
        transmit_ws(c, 10, c->control.at, c->control.size);
    else if (c->opcode == 8 && active > 0)
        fail(c, "closed with %d", c->control.size >= 2 ? (unsigned char)c->control.at[0] << 8 |
                                      (unsigned char)c->control.at[1] : 1005);
    else if (c->opcode < 8 && c->is_final)
        message_ended(c);
    c->control.size = 0;
}

static void take_ws(struct connection *c, const char *at, const char *end)
{
    while (c->stage != CLOSED) {
        unsigned length = c->header_size > 1 ? c->header[1] : 0;
        unsigned whole = length == 127 ? 10 : length == 126 ? 4 : 2;
        if (c->header_size < whole) {
            if (at == end)
                return;
            c->header[c->header_size++] = (unsigned char)*at++;
            whole = c->header_size > 1 ? (c->header[1] == 127 ? 10 : c->header[1] == 126 ? 4 : 2)
                                       : 2;
            if (c->header_size < whole)
                continue;
            c->is_final = c->header[0] & 0x80;
            c->opcode = c->header[0] & 0x0f;
            c->left = whole == 2 ? c->header[1] : 0;
            for (unsigned i = 2; i < whole; i++)
                c->left = c->left << 8 | c->header[i];
        }
        uint64_t size = (uint64_t)(end - at) < c->left ? (uint64_t)(end - at) : c->left;
        c->left -= size;
        if (c->opcode >= 8)
            add(&c->control, at, size);
        else if (options.transport == SOCKETIO)
            add(&c->line, at, size);
        else
            take_payload(c, at, at + size);
        at += size;
        if (c->left)
            return;
        frame_ended(c);
    }
}

/* ---- The loop ---- */

static void receive(struct connection *c)
{
    static char input[256 * 1024];
    ssize_t size = recv(c->fd, input, sizeof input, 0);
    if (size < 0) {
        if (errno != EAGAIN && errno != EINTR)
            fail(c, "recv: %s", strerror(errno));
        return;
    }
    if (size == 0) {
        if (c->stage == ASKED && c->closes && c->is_done)
            answered(c);
        else if (active > 0 || options.hold)
            fail(c, "the server hung up");
        else
            hang_up(c);
        return;
    }
    now = clock_now();
    seen.reads++;
    seen.bytes += (uint64_t)size;
    const char *at = input, *end = input + size;
    if (c->stage == HANDSHAKE && c->part == HEAD) {
        const char *rest = take_head(c, at, end);
        if (c->stage == CLOSED || rest == end) {
            if (c->stage != CLOSED && c->line.size == 0)
                c->part = DATA; /* the head is behind us */
            return;
        }
        c->part = DATA;
        at = rest;
    }
    if (options.transport == HTTP)
        take_http(c, at, end);
    else
        take_ws(c, at, end);
}

static bool stdin_ended;

static void turn(int milliseconds)
{
    static struct epoll_event events[512];
    uint64_t before = clock_now();
    int count = epoll_wait(poller, events, 512, options.spin ? 0 : milliseconds);
    if (count < 0 && errno != EINTR)
        die("epoll_wait");
    if (count <= 0)
        seen.idle += clock_now() - before;
    for (int i = 0; i < count; i++) {
        struct connection *c = events[i].data.ptr;
        char byte;
        if (!c) { /* stdin */
            stdin_ended = read(0, &byte, 1) <= 0;
            continue;
        }
        if (c->stage == CONNECTING) {
            if (events[i].events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
                connected(c);
            continue;
        }
        if (c->stage != CLOSED && events[i].events & EPOLLOUT)
            flush(c);
        if (c->stage != CLOSED && events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP) &&
            !(c->is_slow && c->stage == ASKED))
            receive(c);
    }
}

static void connect_all(uint64_t until)
{
    int next = 0;
    settled = 0;
    while (settled < options.connections && clock_now() < until) {
        while (next < options.connections && connecting < CONNECTING_AT_ONCE &&
               next - settled < CONNECTING_AT_ONCE)
            open_connection(&connections[next++]);
        turn(10);
    }
}

static void ask_all(uint64_t until)
{
    uint64_t began = clock_now();
    uint64_t apart = (uint64_t)(options.stagger * (double)SECOND / options.connections);
    int first = options.supersede ? 1 : options.connections;
    supersede_until = began + (uint64_t)(options.supersede * (double)SECOND);
    for (int next = 0; active > 0 && clock_now() < until;) {
        while (next < first && began + (uint64_t)next * apart <= clock_now()) {
            if (connections[next].stage == READY)
                ask(&connections[next]);
            next++;
            if (next % 16 == 0)
                turn(0);
        }
        turn(next < first ? (apart > 2000000 ? 1 : 0) : 10);
    }
}

/* All have their first token, or nothing was to be asked: until stdin ends. */
static void hold(uint64_t until)
{
    int wanted = options.chats ? options.connections : 0;
    settled = 0;
    for (int i = 0; i < wanted; i++) {
        ask(&connections[i]);
        turn(0);
    }
    while (settled < wanted && !seen.errors && clock_now() < until)
        turn(10);
    printf("ready %d\n", open_count);
    fflush(stdout);
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(poller, EPOLL_CTL_ADD, 0, &event) < 0)
        die("stdin");
    while (!stdin_ended && clock_now() < until)
        turn(100);
}

/* ---- The result ---- */

static int by_size(const void *one, const void *other)
{
    uint64_t a = *(const uint64_t *)one, b = *(const uint64_t *)other;
    return (a > b) - (a < b);
}

static void print_quantiles(const char *name, struct samples *samples)
{
    static const struct {
        const char *name;
        double share;
    } QUANTILES[] = {{"p50", .5}, {"p90", .9}, {"p99", .99}, {"p999", .999}, {"max", 1}};
    qsort(samples->at, samples->count, sizeof *samples->at, by_size);
    printf(",\"%s\":{\"count\":%zu", name, samples->count);
    for (size_t i = 0; samples->count && i < sizeof QUANTILES / sizeof *QUANTILES; i++) {
        size_t rank = (size_t)(QUANTILES[i].share * (double)(samples->count - 1) + .5);
        printf(",\"%s\":%.9f", QUANTILES[i].name, (double)samples->at[rank] / 1e9);
    }
    printf("}");
}

/* Over the steady time: how many tokens were due, how many came, and how late those were. */
static void print_steady(void)
{
    uint64_t last = 0, margin = (uint64_t)(options.stagger * (double)SECOND);
    for (size_t i = 0; i < seen.due.count; i++)
        last = seen.due.at[i] > last ? seen.due.at[i] : last;
    uint64_t from = seen.first_ask + margin, until = last - margin, due = 0, came = 0;
    struct samples delays = {0};
    for (size_t i = 0; i < seen.due.count; i++) {
        uint64_t at = seen.due.at[i], arrived = at + seen.delay.at[i];
        came += arrived >= from && arrived < until;
        if (at >= from && at < until) {
            due++;
            sample(&delays, seen.delay.at[i]);
        }
    }
    printf(",\"steady\":{\"seconds\":%.6f,\"due\":%llu,\"came\":%llu}",
           until > from ? (double)(until - from) / 1e9 : 0,
           (unsigned long long)due, (unsigned long long)came);
    print_quantiles("delay", &delays);
}

static int report(double cpu, double wall)
{
    int unfinished = options.hold || options.supersede ? 0 : active;
    double idle = (double)seen.idle / 1e9;
    printf("{\"transport\":\"%s\",\"connections\":%d,\"open\":%d,\"chats\":%llu,"
           "\"frames\":%llu,\"tokens\":%llu,\"bytes\":%llu,\"reads\":%llu,\"replaced\":%llu,"
           "\"seconds\":%.6f,\"busy\":%.4f,\"errors\":%llu,\"unfinished\":%d,"
           "\"first_error\":\"%s\"",
           TRANSPORTS[options.transport], options.connections, open_count,
           (unsigned long long)seen.chats, (unsigned long long)seen.frames,
           (unsigned long long)seen.tokens, (unsigned long long)seen.bytes,
           (unsigned long long)seen.reads, (unsigned long long)seen.replaced,
           seen.last_end > seen.first_ask ? (double)(seen.last_end - seen.first_ask) / 1e9 : 0,
           options.spin ? (wall - idle) / wall : cpu / wall,
           (unsigned long long)seen.errors, unfinished, seen.first_error);
    bool together = seen.together_from && seen.together_until > seen.together_from;
    printf(",\"together\":{\"seconds\":%.6f,\"frames\":%llu}",
           together ? (double)(seen.together_until - seen.together_from) / 1e9 : 0,
           (unsigned long long)(together ? seen.frames_after - seen.frames_before : 0));
    print_quantiles("first_frame", &seen.first_frame);
    print_quantiles("first_token", &seen.first_token);
    print_quantiles("chat", &seen.whole);
    print_quantiles("replace", &seen.replace);
    print_steady();
    puts("}");
    return seen.errors || unfinished;
}

static double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static const struct option OPTIONS[] = {
    {"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"path", 1, 0, 'a'}, {"transport", 1, 0, 't'},
    {"connections", 1, 0, 'c'}, {"chats", 1, 0, 'n'}, {"body", 1, 0, 'b'},
    {"stagger", 1, 0, 's'}, {"timeout", 1, 0, 'o'}, {"hold", 0, 0, 'H'},
    {"supersede", 1, 0, 'S'}, {"slow", 1, 0, 'l'}, {"slow-body", 1, 0, 'L'},
    {"spin", 0, 0, 'i'}, {"help", 0, 0, '?'}, {0},
};

static void usage(void)
{
    fputs(
        "usage: loadgen --port N [options]\n"
        "  --host ADDRESS       an IPv4 address (127.0.0.1)\n"
        "  --path PATH          where the chat is (/)\n"
        "  --transport KIND     http, ws or socketio (http)\n"
        "  --connections N      at a time, all open before anything is asked (1)\n"
        "  --chats N            on each connection, one after the other (1; 0 with --hold)\n"
        "  --body JSON          what to ask; $N in it is the connection's number\n"
        "  --stagger SECONDS    over which the first questions are spread (0)\n"
        "  --timeout SECONDS    for everything (60)\n"
        "  --hold               once all have their first token, say `ready` and wait until stdin\n"
        "                       ends\n"
        "  --supersede SECONDS  as soon as an answer has its first token ask anew, for so long\n"
        "  --slow N             so many connections ask and then read nothing\n"
        "  --slow-body JSON     what those ask\n"
        "  --spin               never sleep: the server is not charged for waking this program\n",
        stderr);
    exit(2);
}

static void parse(int argc, char **argv)
{
    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;)
        switch (option) {
        case 'h': options.host = optarg; break;
        case 'p': options.port = atoi(optarg); break;
        case 'a': options.path = optarg; break;
        case 't':
            options.transport = HTTP;
            while (strcmp(optarg, TRANSPORTS[options.transport]) != 0)
                if (++options.transport > SOCKETIO)
                    usage();
            break;
        case 'c': options.connections = atoi(optarg); break;
        case 'n': options.chats = atoi(optarg); break;
        case 'b': options.body = optarg; break;
        case 's': options.stagger = atof(optarg); break;
        case 'o': options.timeout = atof(optarg); break;
        case 'H': options.hold = true; break;
        case 'S': options.supersede = atof(optarg); break;
        case 'l': options.slow = atoi(optarg); break;
        case 'L': options.slow_body = optarg; break;
        case 'i': options.spin = true; break;
        default: usage();
        }
    if (optind != argc || options.port <= 0 || options.connections <= 0 || options.chats < 0 ||
        (options.chats == 0 && !options.hold))
        usage();
}

int main(int argc, char **argv)
{
    parse(argc, argv);
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    address.sin_family = AF_INET;
    address.sin_port = htons((uint16_t)options.port);
    if (inet_pton(AF_INET, options.host, &address.sin_addr) != 1)
        usage();
    poller = epoll_create1(0);
    connections = calloc((size_t)options.connections, sizeof *connections);
    if (poller < 0 || !connections)
        die("start");
    for (int i = 0; i < options.connections; i++) {
        connections[i].number = i;
        connections[i].chats_left = options.supersede ? 1 : options.chats;
        connections[i].is_slow = i < options.slow;
    }
    uint64_t until = clock_now() + (uint64_t)(options.timeout * (double)SECOND);
    active = options.connections;
    connect_all(until);
    is_running = true;
    seen.idle = 0;
    double cpu = cpu_seconds();
    uint64_t began = clock_now();
    if (options.hold)
        hold(until);
    else
        ask_all(until);
    return report(cpu_seconds() - cpu, (double)(clock_now() - began) / 1e9);
}
