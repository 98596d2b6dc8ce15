/* What `warren.h` promises. Standard input and output are not used: without them a plugin imports nothing
 * of WASI, and is a third of the size. */

#include "warren.h"

#include <stdlib.h>
#include <string.h>

/* What was allocated in this run. */
typedef struct block {
    struct block *next;
    max_align_t data[];
} block;

static block *blocks;

void *warren_alloc(size_t size) {
    block *fresh = size > SIZE_MAX - sizeof(block) ? NULL : malloc(sizeof(block) + size);
    if (fresh == NULL) abort();
    fresh->next = blocks;
    blocks = fresh;
    return fresh->data;
}

void warren_forget(void) {
    while (blocks != NULL) {
        block *next = blocks->next;
        free(blocks);
        blocks = next;
    }
}

worker_string_t warren_string(const char *text) {
    worker_string_t string;
    worker_string_set(&string, text);
    return string;
}

/* A text that outlives the run: the binding frees it. */
static worker_string_t kept(const char *text) {
    worker_string_t string;
    worker_string_dup(&string, text);
    return string;
}

const char *warren_text(worker_string_t text) {
    char *copy = warren_alloc(text.len + 1);
    memcpy(copy, text.ptr, text.len);
    copy[text.len] = 0;
    return copy;
}

const char *warren_concat(const char *first, ...) {
    va_list texts;
    size_t size = 1;
    va_start(texts, first);
    for (const char *text = first; text != NULL; text = va_arg(texts, const char *))
        size += strlen(text);
    va_end(texts);
    char *all = warren_alloc(size), *end = all;
    va_start(texts, first);
    for (const char *text = first; text != NULL; text = va_arg(texts, const char *)) {
        size_t length = strlen(text);
        memcpy(end, text, length);
        end += length;
    }
    va_end(texts);
    *end = 0;
    return all;
}

/* How a run ends */

static warren_payload json_payload(worker_string_t type, worker_string_t json) {
    return (warren_payload){.content_type = type, .body = {.ptr = json.ptr, .len = json.len}};
}

warren_end warren_done(void) {
    return (warren_end){.has_succeeded = true, .outcome = {.tag = WARREN_WORKER_TYPES_OUTCOME_DONE}};
}

warren_end warren_forward(const char *json) {
    warren_end end = {.has_succeeded = true, .outcome = {.tag = WARREN_WORKER_TYPES_OUTCOME_FORWARD}};
    end.outcome.val.forward = json_payload(kept("application/json"), kept(json));
    return end;
}

warren_end warren_route(const char *const *stops, const warren_payload *data) {
    warren_end end = {.has_succeeded = true, .outcome = {.tag = WARREN_WORKER_TYPES_OUTCOME_ROUTE}};
    warren_worker_types_slip_t *slip = &end.outcome.val.route;
    size_t n_stops = 0;
    while (stops[n_stops] != NULL) n_stops += 1;
    slip->stops.len = n_stops;
    slip->stops.ptr = malloc((n_stops + 1) * sizeof(worker_string_t));
    if (slip->stops.ptr == NULL) abort();
    for (size_t n = 0; n < n_stops; n += 1) slip->stops.ptr[n] = kept(stops[n]);
    worker_string_t body;
    worker_string_dup_n(&body, (const char *)data->body.ptr, data->body.len);
    slip->data = json_payload(kept(warren_text(data->content_type)), body);
    return end;
}

warren_end warren_reject(const char *reason) {
    warren_end end = {.failure = {.tag = WARREN_WORKER_TYPES_FAILURE_REJECT}};
    end.failure.val.reject = kept(reason);
    return end;
}

warren_end warren_retry(const char *reason) {
    warren_end end = {.failure = {.tag = WARREN_WORKER_TYPES_FAILURE_RETRY}};
    end.failure.val.retry.reason = kept(reason);
    return end;
}

warren_end warren_retry_after(const char *reason, uint64_t milliseconds) {
    warren_end end = warren_retry(reason);
    end.failure.val.retry.after_ms.is_some = true;
    end.failure.val.retry.after_ms.val = milliseconds;
    return end;
}

/* JSON. The host hands over nothing that is not valid, so that a reader may be short. */

typedef struct {
    const char *at;
    const char *end;
} cursor;

static void skip_space(cursor *c) {
    while (c->at < c->end && strchr(" \t\r\n", *c->at) != NULL && *c->at != 0) c->at += 1;
}

static bool take(cursor *c, char expected) {
    skip_space(c);
    if (c->at == c->end || *c->at != expected) return false;
    c->at += 1;
    return true;
}

/* Steps over a text that has begun, to behind its quotation mark. */
static bool skip_text(cursor *c) {
    for (; c->at < c->end; c->at += 1) {
        if (*c->at == '\\') {
            c->at += 1;
        } else if (*c->at == '"') {
            c->at += 1;
            return true;
        }
    }
    c->at = c->end;
    return false;
}

/* Steps over a value, however deep it is. */
static bool skip_value(cursor *c) {
    size_t depth = 0;
    skip_space(c);
    while (c->at < c->end) {
        char byte = *c->at;
        if (depth == 0 && (byte == ',' || byte == '}' || byte == ']')) return true;
        c->at += 1;
        if (byte == '"' && !skip_text(c)) return false;
        if (byte == '{' || byte == '[') depth += 1;
        if (byte == '}' || byte == ']') depth -= 1;
    }
    return depth == 0;
}

static int hex(const char *digits) {
    int value = 0;
    for (int n = 0; n < 4; n += 1) {
        char digit = digits[n];
        value = value * 16 + (digit <= '9' ? digit - '0' : (digit | 32) - 'a' + 10);
    }
    return value;
}

static char *put_utf8(char *out, uint32_t point) {
    if (point < 0x80) {
        *out++ = (char)point;
    } else if (point < 0x800) {
        *out++ = (char)(0xC0 | point >> 6);
        *out++ = (char)(0x80 | (point & 0x3F));
    } else if (point < 0x10000) {
        *out++ = (char)(0xE0 | point >> 12);
        *out++ = (char)(0x80 | (point >> 6 & 0x3F));
        *out++ = (char)(0x80 | (point & 0x3F));
    } else {
        *out++ = (char)(0xF0 | point >> 18);
        *out++ = (char)(0x80 | (point >> 12 & 0x3F));
        *out++ = (char)(0x80 | (point >> 6 & 0x3F));
        *out++ = (char)(0x80 | (point & 0x3F));
    }
    return out;
}

/* A text without its escapes, which never make it longer; NULL when it holds a zero, which no text of C
 * can. `end` is its closing quotation mark. */
static const char *unescape(const char *at, const char *end) {
    static const char escapes[] = "b\bf\fn\nr\rt\t";
    char *text = warren_alloc((size_t)(end - at) + 1), *out = text;
    while (at < end) {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        at += 1;
        if (at == end) return NULL;
        if (*at != 'u') {
            const char *known = strchr(escapes, *at);
            *out++ = known != NULL && (known - escapes) % 2 == 0 ? known[1] : *at;
            at += 1;
            continue;
        }
        if (end - at < 5) return NULL;
        uint32_t point = (uint32_t)hex(at + 1);
        at += 5;
        if (point >= 0xD800 && point < 0xDC00 && end - at >= 6 && at[0] == '\\' && at[1] == 'u') {
            point = 0x10000 + ((point - 0xD800) << 10) + ((uint32_t)hex(at + 2) - 0xDC00);
            at += 6;
        }
        if (point == 0) return NULL;
        out = put_utf8(out, point);
    }
    *out = 0;
    return text;
}

/* Goes to the value of a member; false when there is none. */
static bool find(cursor *c, const char *name) {
    if (!take(c, '{')) return false;
    do {
        if (!take(c, '"')) return false;
        const char *begin = c->at;
        if (!skip_text(c)) return false;
        const char *found = unescape(begin, c->at - 1);
        if (!take(c, ':')) return false;
        skip_space(c);
        if (found != NULL && strcmp(found, name) == 0) return c->at < c->end;
        if (!skip_value(c)) return false;
    } while (take(c, ','));
    return false;
}

static cursor cursor_of(const warren_payload *data) {
    const char *at = (const char *)data->body.ptr;
    return (cursor){.at = at, .end = at + data->body.len};
}

const char *warren_json_text(const warren_payload *data, const char *name) {
    cursor c = cursor_of(data);
    if (!find(&c, name) || !take(&c, '"')) return NULL;
    const char *begin = c.at;
    return skip_text(&c) ? unescape(begin, c.at - 1) : NULL;
}

bool warren_json_number(const warren_payload *data, const char *name, double *number) {
    cursor c = cursor_of(data);
    if (!find(&c, name) || strchr("-0123456789", *c.at) == NULL || *c.at == 0) return false;
    const char *begin = c.at;
    if (!skip_value(&c)) return false;
    worker_string_t digits = {.ptr = (uint8_t *)begin, .len = (size_t)(c.at - begin)};
    *number = strtod(warren_text(digits), NULL);
    return true;
}

const char *warren_json_quote(const char *text) {
    static const char digits[] = "0123456789abcdef";
    char *quoted = warren_alloc(strlen(text) * 6 + 3), *out = quoted;
    *out++ = '"';
    for (; *text != 0; text += 1) {
        unsigned char byte = (unsigned char)*text;
        if (byte < 0x20) {
            memcpy(out, "\\u00", 4);
            out[4] = digits[byte >> 4];
            out[5] = digits[byte & 15];
            out += 6;
            continue;
        }
        if (byte == '"' || byte == '\\') *out++ = '\\';
        *out++ = *text;
    }
    *out++ = '"';
    *out = 0;
    return quoted;
}

/* The host */

static warren_worker_types_slip_t slip_to(worker_string_t *stop, const char *json) {
    warren_worker_types_slip_t slip = {.stops = {.ptr = stop, .len = 1}};
    slip.data = json_payload(warren_string("application/json"), warren_string(json));
    return slip;
}

const char *warren_send(const char *stop, const char *json) {
    worker_string_t to = warren_string(stop);
    warren_worker_types_slip_t slip = slip_to(&to, json);
    warren_worker_bus_send_error_t error;
    if (warren_worker_bus_send(&slip, &error)) return NULL;
    const char *reason = warren_text(error.val.other);
    warren_worker_bus_send_error_free(&error);
    return reason;
}

warren_reply warren_call(const char *stop, const char *json, uint64_t timeout_ms) {
    worker_string_t to = warren_string(stop);
    warren_worker_types_slip_t slip = slip_to(&to, json);
    warren_worker_types_payload_t payload;
    warren_worker_bus_call_error_t error;
    uint64_t *timeout = timeout_ms == 0 ? NULL : &timeout_ms;
    if (warren_worker_bus_call(&slip, timeout, &payload, &error)) {
        worker_string_t body = {.ptr = payload.body.ptr, .len = payload.body.len};
        const char *reply = warren_text(body);
        warren_worker_types_payload_free(&payload);
        return (warren_reply){.reply = reply};
    }
    warren_reply none = {.error = error.tag, .reason = warren_text(error.val.other)};
    warren_worker_bus_call_error_free(&error);
    return none;
}

warren_end warren_no_reply(warren_reply reply) {
    switch (reply.error) {
    case WARREN_WORKER_BUS_CALL_ERROR_NO_LIVE_WORKER:
    case WARREN_WORKER_BUS_CALL_ERROR_QUEUE_FULL:
    case WARREN_WORKER_BUS_CALL_ERROR_TIMEOUT:
    case WARREN_WORKER_BUS_CALL_ERROR_UNAVAILABLE:
    case WARREN_WORKER_BUS_CALL_ERROR_OTHER:
        return warren_retry(reply.reason);
    default:
        return warren_reject(reply.reason);
    }
}

static void say(wasi_logging_logging_level_t level, const char *message) {
    worker_string_t context = warren_string("worker"), text = warren_string(message);
    wasi_logging_logging_log(level, &context, &text);
}

void warren_info(const char *message) { say(WASI_LOGGING_LOGGING_LEVEL_INFO, message); }
void warren_warn(const char *message) { say(WASI_LOGGING_LOGGING_LEVEL_WARN, message); }
void warren_error(const char *message) { say(WASI_LOGGING_LOGGING_LEVEL_ERROR, message); }

void warren_count(const char *name, uint64_t by) {
    worker_string_t metric = warren_string(name);
    warren_worker_metrics_labels_t none = {0};
    warren_worker_metrics_count(&metric, &none, by);
}

void warren_describe(exports_warren_worker_descriptor_description_t *description, const char *type,
                     const char *version, const char *summary) {
    memset(description, 0, sizeof *description);
    description->worker_type = kept(type);
    description->version = kept(version);
    description->summary = kept(summary);
}
